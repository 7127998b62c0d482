"""The pairs of the reward model: judged ones that are cut, batches of pairs, replies sampled for them, replies cut short."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from duihua.data.pairs import Exchange
from duihua.data.records import LeftOut, Preference
from duihua.data.source import SourceConfig
from duihua.errors import BundleError
from duihua.models.heads import ScoredDecoder
from duihua.stages import reward
from duihua.stages.configs.reward import RewardConfig
from duihua.stages.context import StageContext
from duihua.stages.encoded_pairs import Pair, cut_side, encode_pairs
from duihua.stages.pair_batches import PairBatches, pair_batch
from duihua.stages.prepared_pairs import say_counts
from duihua.stages.prompts import open_sources
from duihua.stages.replies import Reply, Sampler, alternating, stored_replies
from duihua.stages.reward_pairs import PairData, PairMaker, accuracy_rows, share_out
from duihua.text.chat_template import ChatTemplate


def preference(chosen: str, rejected: str) -> Preference:
    return Preference([{"role": "user", "content": "name red"}], chosen, rejected, "s", "human", "en")


def test_long_equal_and_empty_pairs_are_counted_and_not_cut(lab: Any) -> None:
    left_out = LeftOut()
    records = [preference("red", "blue"), preference("red " * 50, "x"), preference("red", "red "), preference("", "x")]
    pairs = encode_pairs(records, "human", 48, ChatTemplate(lab.tokenizer), left_out)
    assert len(pairs) == 1
    assert dict(left_out.counts) == {
        "human pair longer than 48 tokens": 1, "human pair of equal replies": 1, "human pair with an empty reply": 1,
    }  # fmt: skip


@pytest.mark.parametrize(("ids", "reply"), [(10, 4), (10, 8), (3, 20), (3, 4)])
def test_a_long_side_keeps_the_end_of_its_prompt_and_the_start_of_its_reply(ids: int, reply: int) -> None:
    """Length 8, so the prompt may have 4 tokens at least: prompt p0 p1 ..., reply r0 r1 ... with the stop token 99."""
    prompt = list(range(ids))
    body = [*range(50, 49 + reply), 99]
    cut, kept = cut_side(prompt + body, reply, 8)
    assert len(cut) == min(8, ids + reply)
    assert cut[-1] == 99
    assert cut[: len(cut) - kept] == prompt[-(len(cut) - kept) :]
    assert cut[len(cut) - kept : -1] == body[: kept - 1]
    assert kept == reply or len(cut) - kept == min(4, ids), "the prompt gives way first, down to half the length"


def test_cut_pairs_are_counted_and_both_sides_keep_the_same_prompt(lab: Any) -> None:
    left_out, cut = LeftOut(), LeftOut()
    long_prompt = Preference(
        [{"role": "user", "content": "name red " * 30}], "red " * 60, "blue dog", "s", "human", "en"
    )
    pairs = encode_pairs(
        [preference("red", "blue"), long_prompt], "human", 32, ChatTemplate(lab.tokenizer), left_out, cut
    )
    assert dict(cut.counts) == {"human pair cut to 32 tokens": 1}
    assert left_out.total == 0
    pair = pairs[1]
    assert len(pair.chosen) == 32 >= len(pair.rejected)
    shared = len(pair.chosen) - pair.chosen_reply
    assert pair.chosen[:shared] == pair.rejected[:shared]
    assert len(pair.rejected) - pair.rejected_reply == shared
    assert pair.chosen[-1] == pair.rejected[-1] == lab.tokenizer.im_end_id


def some_pairs(count: int) -> list[Pair]:
    return [Pair([1] * (3 + i % 5), [2] * (4 + i % 3), "human", 2, 2, "s", "en") for i in range(count)]


@pytest.mark.checklist(5)
def test_an_epoch_shows_every_pair_once_in_an_order_of_its_own() -> None:
    pairs = [dataclasses.replace(pair, chosen=[i, *pair.chosen]) for i, pair in enumerate(some_pairs(10))]
    batches = PairBatches(pairs, 4, 3, 0, seed=1)
    assert batches.steps_per_epoch == 3
    epochs = []
    for _ in range(2):
        shown = [int(i) for _ in range(3) for m in batches.next() for i in m["token_ids"][: len(m["lengths"]) // 2, 0]]
        assert sorted(shown) == list(range(10))
        epochs.append(shown)
    assert epochs[0] != epochs[1]
    again = PairBatches(pairs, 4, 3, 0, seed=1)
    again.load_state_dict({"step": 3})
    assert torch.equal(again.next()[0]["token_ids"], PairBatchesAt(pairs, 3)["token_ids"])


def PairBatchesAt(pairs: list[Pair], step: int) -> dict[str, torch.Tensor]:  # noqa: N802
    batches = PairBatches(pairs, 4, 3, 0, seed=1)
    for _ in range(step):
        batches.next()
    return batches.next()[0]


def test_gradient_does_not_depend_on_the_micro_batches_of_pairs(lab: Any) -> None:
    def gradient(micro: int) -> torch.Tensor:
        network = ScoredDecoder(lab.decoder()).initialise_score(0)
        parts = [reward.Loss(RewardConfig())(network, b) for b in PairBatches(some_pairs(8), 8, micro, 0, 0).next()]
        (sum(part.sum for part in parts) / sum(part.weight for part in parts)).backward()
        return torch.cat([w.grad.flatten() for w in network.parameters() if w.grad is not None])

    torch.testing.assert_close(gradient(8), gradient(3), rtol=1e-3, atol=1e-6)


def test_chosen_rows_come_first() -> None:
    batch = pair_batch([Pair([1, 1], [2], "human", 1, 1, "s", "en"), Pair([3], [4, 4, 4], "human", 1, 1, "s", "en")], 0)
    assert batch["token_ids"].tolist() == [[1, 1, 0], [3, 0, 0], [2, 0, 0], [4, 4, 4]]
    assert batch["lengths"].tolist() == [2, 1, 1, 3]


def test_a_small_pool_is_shared_in_proportion() -> None:
    pool = [Exchange([{"role": "user", "content": str(i)}], "r", "s", "en") for i in range(10)]
    assert [len(part) for part in share_out(pool, [10, 5, 5])] == [5, 2, 2]
    parts = share_out(pool, [4, 2, 2])
    assert [len(part) for part in parts] == [4, 2, 2]
    assert len({e.key for part in parts for e in part}) == 8, "no prompt stands in two parts"


# -- sampling that survives an interruption ---------------------------------------------------------------------------


def test_stored_replies_are_made_once_and_equal_fresh_ones(lab: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("duihua.stages.replies.CHUNK", 3)
    prompts, seeds = lab.prompts(8), list(range(8))
    sample, asked = lab.sampler(lab.decoder(), lab.config()), []

    def counting(part: Any, part_seeds: Any) -> list[Reply]:
        asked.append(len(part))
        return sample(part, part_seeds)

    whole = stored_replies(counting, prompts, seeds, tmp_path / "a", "key", "train")
    assert asked == [3, 3, 2]
    (tmp_path / "a" / "train-0001.json").write_text("{ broken")
    again = stored_replies(counting, prompts, seeds, tmp_path / "a", "key", "train")
    assert asked == [3, 3, 2, 3], "only the broken chunk is made again"
    assert again == whole
    stored_replies(counting, prompts, seeds, tmp_path / "a", "another policy", "train")
    assert asked[4:] == [3, 3, 2], "replies of another policy are not used"


def test_the_sampled_side_of_a_pair_is_the_candidate_nearest_in_length(lab: Any, tmp_path: Path) -> None:
    template = ChatTemplate(lab.tokenizer)
    reply = "a b c d"
    wanted = len(template.tokenizer.encode(reply)) + 1
    lengths = [wanted + 5, wanted - 1, wanted + 2]
    calls = []

    def sample(prompts: Any, seeds: Any) -> list[Reply]:
        calls.append(list(seeds))
        return [Reply([5] * lengths[number % 3], [0.0] * lengths[number % 3], True) for number in range(len(prompts))]

    config = lab.reward_config(tmp_path, sampled_candidates=3)
    maker = PairMaker(config, template, 64, sample, tmp_path, "key", seed=1)
    exchange = Exchange([{"role": "user", "content": "hi"}], reply, "s", "en")
    assert [reply.ids for reply in maker._nearest_in_length([exchange], "train")] == [[5] * (wanted - 1)]
    assert len(set(calls[0])) == 3, "candidates must be drawn with seeds of their own"
    longer = dataclasses.replace(exchange, reply="a b c d e f g h")
    assert [reply.ids for reply in maker._nearest_in_length([longer], "other")] != [[5] * (wanted - 1)]


def test_what_did_not_end_has_no_stop_token_where_likelihoods_are_learnt(lab: Any, tmp_path: Path) -> None:
    """Sampled replies that were broken off, and judged ones that were cut; a reward model reads a stop token on every one."""
    template, stop = ChatTemplate(lab.tokenizer), lab.tokenizer.im_end_id
    words = template.tokenizer.encode("blue dog")

    def sides(open_ends: bool, ended: bool) -> tuple[bool, bool, bool, bool]:
        def sample(prompts: Any, seeds: Any) -> list[Reply]:
            return [Reply([*words, stop] if ended else words, [0.0] * len(words), ended) for _ in prompts]

        folder = tmp_path / f"{open_ends}{ended}"
        config = lab.reward_config(folder, sampled_candidates=1)
        maker = PairMaker(config, template, 32, sample, folder, "key", seed=1, open_ends=open_ends)
        (pair,) = maker._made(
            [Exchange([{"role": "user", "content": "hi"}], "red red", "s", "en")], 0, "train", LeftOut()
        )
        judged = Preference([{"role": "user", "content": "name"}], "red " * 60, "dog", "s", "human", "en")
        (cut,) = maker._encoded([judged], "train", PairData())
        for side, reply in ((pair.rejected, pair.rejected_reply), (cut.chosen, cut.chosen_reply)):
            assert template.tokenizer.decode(side[:-reply]).rstrip().endswith("assistant")
        assert template.tokenizer.decode(pair.rejected[-pair.rejected_reply :]).startswith("blue dog")
        return tuple(ids[-1] == stop for ids in (pair.chosen, pair.rejected, cut.chosen, cut.rejected))  # type: ignore[return-value]

    assert sides(open_ends=True, ended=False) == (True, False, False, True)
    assert sides(open_ends=True, ended=True) == (True, True, False, True)
    assert sides(open_ends=False, ended=False) == (True, True, True, True)


def test_a_reply_cut_short_ends_after_a_third_and_is_for_training_alone(lab: Any, tmp_path: Path) -> None:
    template, stop = ChatTemplate(lab.tokenizer), lab.tokenizer.im_end_id

    def sample(prompts: Any, seeds: Any) -> list[Reply]:
        return [Reply([*lab.tokenizer.encode("zzz"), stop], [0.0], True) for _ in prompts]

    def reply(ids: list[int], length: int) -> str:
        return lab.tokenizer.decode(ids[-length:]).strip()

    def made(count: int) -> PairData:
        config = lab.reward_config(tmp_path / str(count), sampled_candidates=1, cut_short_pairs=count)
        maker = PairMaker(config, template, 64, sample, tmp_path / str(count), "key", seed=1)
        return maker.make([], open_sources(config.conversations, tmp_path, "conversations", "test"))

    data = made(2)
    pairs = [pair for pair in data.train if pair.kind == "cut_short"]
    assert data.counts()["train"]["cut_short"] == len(pairs) == 2 and "cut_short" not in data.counts()["heldout"]
    for pair in pairs:
        whole, start = reply(pair.chosen, pair.chosen_reply), reply(pair.rejected, pair.rejected_reply)
        assert whole.startswith(start) and 0 < len(start) < len(whole)
        assert pair.rejected[-1] == stop, "a start of a reply that is ended"
    assert made(0).counts()["train"]["cut_short"] == 0, "none unless asked for"


def test_of_every_second_pair_the_other_model_writes_the_sampled_reply(lab: Any, tmp_path: Path) -> None:
    """And all candidates of one pair are of the same model; replies that scores are normalised by are the policy's."""
    asked: dict[str, list[int]] = {"red": [], "blue": []}

    def writer(word: str) -> Sampler:
        def sample(prompts: Any, seeds: Any) -> list[Reply]:
            assert len(prompts) == len(seeds)
            asked[word] += seeds
            ids = [*lab.tokenizer.encode(word), lab.tokenizer.im_end_id]
            return [Reply(ids, [0.0] * len(ids), True) for _ in prompts]

        return sample

    config = lab.reward_config(tmp_path, sampled_candidates=3)
    both = alternating([writer("red"), writer("blue")]), "both"
    maker = PairMaker(config, ChatTemplate(lab.tokenizer), 64, writer("red"), tmp_path, "key", seed=1, rejected=both)
    items = [Exchange([{"role": "user", "content": f"hi {n}"}], "green", "s", "en") for n in range(5)]
    pairs = maker._made(items, 0, "train", LeftOut())
    assert [lab.tokenizer.decode(pair.rejected[-pair.rejected_reply : -1]) for pair in pairs] == [
        "red", "blue", "red", "blue", "red",
    ]  # fmt: skip
    assert (len(asked["red"]), len(asked["blue"])) == (9, 6)
    assert len({*asked["red"], *asked["blue"]}) == 15, "every reply has a seed of its own"
    maker._rows(items, "normalise")
    assert (len(asked["red"]), len(asked["blue"])) == (14, 6)


def test_another_model_of_another_tokenizer_is_refused_before_anything_is_sampled(lab: Any, tmp_path: Path) -> None:
    policy, other = lab.policy_bundle(tmp_path / "sft"), lab.policy_bundle(tmp_path / "base")
    vocabulary = (other / "tokenizer.json").read_text(encoding="utf-8")
    tokenizer = json.loads(vocabulary)
    words = tokenizer["model"]["vocab"]
    first, second = list(words)[:2]
    words[first], words[second] = words[second], words[first]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    context = StageContext(tmp_path / "reward", {"policy": policy, "other": other}, data_directory=tmp_path, threads=1)
    with pytest.raises(BundleError, match="another tokenizer than the policy"):
        reward.run(lab.reward_config(tmp_path), context)
    assert not (tmp_path / "reward" / "replies").exists()


def own_pairs(folder: Path, count: int) -> SourceConfig:
    path = folder / f"pairs{count}.jsonl"
    rows = [{"prompt": f"say {n}", "chosen": f"red {n}", "rejected": f"blue {n}"} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return SourceConfig(path=str(path), kind="preferences")


def test_a_source_without_held_out_pairs_is_named_with_the_remedy(
    lab: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few, many = own_pairs(tmp_path, 3), own_pairs(tmp_path, 200)
    maker = PairMaker(
        lab.reward_config(tmp_path), ChatTemplate(lab.tokenizer), 64, lambda *_: [], tmp_path, "key", seed=1
    )
    maker.make(open_sources([few, many], tmp_path, "preferences", "reward.preferences"), [])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"reward: {few.path}: no pair is held out") and "`heldout:`" in line
    maker.make(open_sources([dataclasses.replace(many, heldout=few.path)], tmp_path, "preferences", "x"), [])
    assert capsys.readouterr().err == ""


def test_what_has_no_pair_has_no_row_and_counts_are_read_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    none, some = ({"value": value, "low": 0.0, "high": 1.0, "n": n} for value, n in ((None, 0), (0.5, 1200)))
    rows = accuracy_rows({"human": some, "off_topic": none}, "all", some)
    assert [row[0] for row in rows] == ["human", "all"]
    assert accuracy_rows({"human": none}, "all", none) == []
    data = PairData(train=[Pair([1], [2], "human", 1, 1, "s", "en")] * 1200)
    data.left_out["train"].add("prompt met before", "a:1", 1275)
    say_counts("dpo", data)
    assert capsys.readouterr().out.splitlines() == [
        "dpo: training pairs: 1,200 human; held-out pairs: none", "dpo: left out of train: 1,275 x prompt met before",
    ]  # fmt: skip
