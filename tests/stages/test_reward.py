"""The reward model: loss, head, where it reads, what it is trained on, and how it is measured."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from duihua.config import build
from duihua.data.pairs import Exchange
from duihua.data.records import LeftOut, Preference
from duihua.data.source import SourceConfig
from duihua.errors import BundleError, ConfigError, DataError
from duihua.models.bundle import load_bundle
from duihua.models.heads import ScoredDecoder
from duihua.stages import reward, stage_trainer
from duihua.stages.configs.reward import RewardConfig
from duihua.stages.configs.sft import SFTConfig
from duihua.stages.context import StageContext
from duihua.stages.encoded_pairs import Pair, cut_side, encode_pairs
from duihua.stages.pair_batches import PairBatches, pair_batch
from duihua.stages.prompts import encode_pair_side, require_stop_token
from duihua.stages.replies import Reply, Sampler, alternating, stored_replies
from duihua.stages.reward import bradley_terry, normalise
from duihua.stages.reward_measures import (
    calibration_curve,
    calibration_error,
    correlation,
    length_statistics,
    margin_histogram,
    measure,
    share_longer,
)
from duihua.stages.reward_pairs import (
    PairData,
    PairMaker,
    share_out,
)
from duihua.stages.reward_probes import PROBES, probe
from duihua.stages.scoring import closed_row, end_scores, pad_rows, reward_scorer, score_rows
from duihua.text.chat_template import ChatTemplate
from duihua.training.config import OptimizerConfig


def torch_start(_: object, self: ScoredDecoder, seed: int) -> ScoredDecoder:
    """As torch starts a linear layer: uniform within 1/sqrt(d), a deviation of 1/sqrt(3d)."""
    torch.manual_seed(seed)
    self.score.reset_parameters()
    return self


def random_trunk(right: Any, self: ScoredDecoder, seed: int) -> ScoredDecoder:
    self.decoder.initialise(seed + 17)
    found: ScoredDecoder = right(self, seed)
    return found


# -- the loss ---------------------------------------------------------------------------------------------------------


@pytest.mark.checklist(5)
@pytest.mark.mutation(
    "the worse reply is the one that gains",
    "duihua.stages.reward:bradley_terry",
    lambda right, chosen, rejected, *rest: right(rejected, chosen, *rest),
)
def test_loss_is_ln_2_at_equality_and_known_values_elsewhere() -> None:
    losses = bradley_terry(torch.tensor([0.3, 2.0, -1.0]), torch.tensor([0.3, 0.0, 1.0]))
    assert losses.tolist() == pytest.approx([math.log(2), math.log1p(math.exp(-2)), math.log1p(math.exp(2))])


@pytest.mark.checklist(5)
def test_gradient_of_the_loss_is_minus_sigmoid_of_the_reversed_difference() -> None:
    chosen, rejected = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in ([0.5, -1.0], [0.2, 1.0]))
    bradley_terry(chosen, rejected).sum().backward()
    expected = -torch.sigmoid(rejected - chosen).detach()
    assert chosen.grad is not None and rejected.grad is not None
    torch.testing.assert_close(chosen.grad, expected)
    torch.testing.assert_close(rejected.grad, -expected)
    torch.testing.assert_close(chosen.grad, torch.tensor([-0.42555748, -0.88079708], dtype=torch.float64))


@pytest.mark.checklist(5)
def test_loss_stays_finite_for_hopeless_pairs_and_swapped_pairs_lose() -> None:
    assert float(bradley_terry(torch.tensor([-500.0]), torch.tensor([500.0]))) == pytest.approx(1000.0)
    right, swapped = (float(bradley_terry(torch.tensor([a]), torch.tensor([-a]))) for a in (1.0, -1.0))
    assert right < math.log(2) < swapped


@pytest.mark.checklist(5)
def test_margin_and_centering() -> None:
    one, two = torch.tensor([2.0]), torch.tensor([1.0])
    assert float(bradley_terry(one, two, margin=1.0)) == pytest.approx(math.log(2))
    plain = float(bradley_terry(one, two))
    assert float(bradley_terry(one, two, centering=0.1)) == pytest.approx(plain + 0.1 * 9.0)


# -- the head and where it is read ------------------------------------------------------------------------------------


@pytest.mark.checklist(3)
@pytest.mark.mutation(
    "the head starts as torch starts a linear layer", "duihua.models.heads:ScoredDecoder.initialise_score", torch_start
)
def test_head_starts_with_the_papers_deviation_and_has_no_bias(lab: Any) -> None:
    network = ScoredDecoder(lab.decoder())
    weights = torch.cat([network.initialise_score(seed).score.weight.flatten().clone() for seed in range(200)])
    expected = 1 / math.sqrt(32 + 1)
    assert float(weights.detach().std()) == pytest.approx(expected, rel=0.03)
    assert abs(float(weights.detach().mean())) < 4 * expected / math.sqrt(len(weights))
    assert ScoredDecoder(lab.decoder()).score.bias is None


@pytest.mark.checklist(3)
def test_initial_rewards_have_variance_about_1(lab: Any) -> None:
    """The final norm gives vectors of mean square 1: their product with N(0, 1/(d+1)) weights has variance near 1."""
    rows = [prompt.ids for prompt in lab.prompts(8)]
    scores = torch.cat(
        [score_rows(ScoredDecoder(lab.decoder(s)).initialise_score(s), rows, lab.tokenizer.pad_id) for s in range(60)]
    )
    assert 0.5 < float(scores.var()) < 2.0
    assert abs(float(scores.mean())) < 0.5


@pytest.mark.checklist(6)
@pytest.mark.mutation(
    "the reward is read in the last column, pads or not",
    "duihua.stages.scoring:end_scores",
    lambda right, network, ids, lengths: network(ids)[:, -1],
)
def test_reward_does_not_depend_on_pads_their_side_or_batch_mates(lab: Any) -> None:
    network = ScoredDecoder(lab.decoder()).initialise_score(0).eval()
    rows = [prompt.ids for prompt in lab.prompts(4)]
    alone = torch.stack([network(torch.tensor([row]))[0, -1] for row in rows])
    ids, lengths = pad_rows(rows, lab.tokenizer.pad_id)
    together = end_scores(network, ids, lengths)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    width = ids.shape[1]
    left = torch.tensor([[lab.tokenizer.pad_id] * (width - len(row)) + row for row in rows])
    for side_ids, mask in (
        (ids, torch.arange(width)[None] < lengths[:, None]),
        (left, torch.arange(width)[None] >= (width - lengths)[:, None]),
    ):
        torch.testing.assert_close(network.last_score(side_ids, mask.long()), alone, rtol=1e-4, atol=1e-5)
    last_column = network(ids)[:, -1]
    assert not torch.allclose(last_column, alone, atol=1e-2), "reading the last column, pads or not, must not pass"


@pytest.mark.checklist(6)
def test_a_side_ends_with_the_stop_token_of_the_reply(lab: Any) -> None:
    template = ChatTemplate(lab.tokenizer)
    prompt = [{"role": "user", "content": "name red"}]
    ids, reply = encode_pair_side(prompt, "blue dog", template)
    assert ids[-1] == lab.tokenizer.im_end_id
    opening = template.encode(prompt, add_generation_prompt=True).ids
    assert ids[:-reply] == opening
    assert lab.tokenizer.decode(ids[-reply:]) == "blue dog"


@pytest.mark.checklist(6)
def test_a_cut_reply_is_closed_for_the_reward_model(lab: Any) -> None:
    stop = lab.tokenizer.im_end_id
    assert closed_row([1, 2], Reply([5, stop], [0.0, 0.0], True), lab.tokenizer) == [1, 2, 5, stop]
    assert closed_row([1, 2], Reply([5, 6], [0.0, 0.0], False), lab.tokenizer) == [1, 2, 5, 6, stop]


# -- pairs and batches ------------------------------------------------------------------------------------------------


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

    config = lab.reward_config(tmp_path, sampled_candidates=1, cut_short_pairs=2, sampled_pairs=4)
    maker = PairMaker(config, template, 64, sample, tmp_path, "key", seed=1)
    replies = ["red blue dog cat sun fish", "x", "one two three", "dog dog cat cat"]
    items = [Exchange([{"role": "user", "content": f"hi {n}"}], text, "s", "en") for n, text in enumerate(replies)]
    left_out = LeftOut()
    pairs = maker._cut_short(items, left_out)

    def reply(ids: list[int], length: int) -> str:
        return lab.tokenizer.decode(ids[-length:]).strip()

    assert [reply(pair.chosen, pair.chosen_reply) for pair in pairs] == [replies[0], replies[2]]
    assert [reply(pair.rejected, pair.rejected_reply) for pair in pairs] == ["red blue", "one"]
    assert all(pair.rejected[-1] == stop and pair.kind == "cut_short" for pair in pairs)
    assert left_out.counts == {"reply too short to be cut short": 1}
    data = PairData(train=pairs)
    assert data.counts()["train"]["cut_short"] == 2 and "cut_short" not in data.counts()["heldout"]
    maker.config = lab.reward_config(tmp_path)
    assert maker._cut_short(items, LeftOut()) == [], "none unless asked for"


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


# -- measuring --------------------------------------------------------------------------------------------------------


@pytest.mark.checklist(7)
@pytest.mark.mutation(
    "the scores are centred and not scaled",
    "duihua.stages.reward:normalise",
    lambda right, scores, data: (
        dataclasses.replace((found := right(scores, data))[0], standard_deviation=1.0),
        found[1],
    ),
)
def test_normalisation_gives_mean_0_and_deviation_1_and_is_checked() -> None:
    generator = torch.Generator().manual_seed(0)
    data = PairData(normalising=[[i] for i in range(500)], verifying=[[i] for i in range(500, 1000)])
    values = 7.0 + 3.0 * torch.randn(1000, generator=generator)
    found, checked = normalise(lambda rows: values[torch.tensor([row[0] for row in rows])], data)
    assert found.mean == pytest.approx(7.0, abs=0.5)
    assert found.standard_deviation == pytest.approx(3.0, abs=0.4)
    other = checked["verification"]
    assert abs(other["mean"]) < 3 * other["mean_standard_error"]
    assert abs(other["std"] - 1) < 3 * other["std_standard_error"]
    shifted = torch.cat([values[:500], values[500:] + 1.5])
    wrong = normalise(lambda rows: shifted[torch.tensor([row[0] for row in rows])], data)[1]["verification"]
    assert abs(wrong["mean"]) > 3 * wrong["mean_standard_error"], "replies of another policy must show"


def test_a_reward_that_never_varies_is_refused() -> None:
    with pytest.raises(DataError, match="same reward"):
        normalise(lambda rows: torch.ones(len(rows)), PairData(normalising=[[1], [2]]))


def test_headline_accuracy_leaves_off_topic_pairs_out() -> None:
    kinds = ["human", "human", "sampled", "sampled", "off_topic", "off_topic"]
    pairs = [Pair([10 + i], [20 + i], kind, 5 + i, 5, "s", "en") for i, kind in enumerate(kinds)]
    right = [1.0, -1.0, 1.0, 1.0, 1.0, 1.0]
    score = {10 + i: value for i, value in enumerate(right)} | {20 + i: 0.0 for i in range(6)}
    found = measure(lambda rows: torch.tensor([score[row[0]] for row in rows]), pairs)
    assert (found["accuracy"]["value"], found["accuracy"]["n"]) == (0.75, 4)
    assert {kind: of["value"] for kind, of in found["kinds"].items()} == {
        "human": 0.5, "sampled": 1.0, "off_topic": 1.0,
    }  # fmt: skip
    assert found["accuracy"]["low"] < 0.75 < found["accuracy"]["high"]
    assert all(of["description"] and of["description_zh"] for of in found["kinds"].values())


def test_a_tie_is_no_success_and_no_pairs_give_no_value() -> None:
    found = measure(lambda rows: torch.zeros(len(rows)), some_pairs(3))
    assert found["accuracy"]["value"] == 0.0
    empty = measure(lambda rows: torch.zeros(len(rows)), [])
    assert empty["accuracy"]["value"] is None
    json.dumps(empty, allow_nan=False)


def test_calibration_error_by_hand() -> None:
    """Confidence 0.9 on ten pairs: nine right is calibrated (0), five right is off by 0.4."""
    logit = math.log(9.0)
    assert calibration_error(torch.tensor([logit] * 9 + [-logit])) == pytest.approx(0.0, abs=1e-6)
    assert calibration_error(torch.tensor([logit] * 5 + [-logit] * 5)) == pytest.approx(0.4, abs=1e-6)


def test_calibration_curve_says_how_sure_and_how_often_right() -> None:
    """Four pairs at confidence 7/8 of which three are right, two at 5/8 of which one is: two bins, each off by 1/8."""
    sure, unsure = math.log(7.0), math.log(5 / 3)
    differences = torch.tensor([sure, sure, sure, -sure, unsure, -unsure], dtype=torch.float64)
    curve = calibration_curve(differences)
    found = [(round(each["confidence"], 6), each["right"], each["n"]) for each in curve]
    assert found == [(0.625, 0.5, 2), (0.875, 0.75, 4)]
    assert calibration_error(differences) == pytest.approx(0.125)
    assert calibration_curve(-differences) != curve, "a model that is wrong as often must not look the same"


def test_margins_are_counted_in_steps_of_half_their_size() -> None:
    """Margins -2, 2, 2, 2 have a root mean square of 2, so the steps are 1 wide from -5 to 5."""
    found = margin_histogram(torch.tensor([-2.0, 2.0, 2.0, 2.0]))
    assert [(each["low"], each["n"]) for each in found if each["n"]] == [(-2.0, 1), (2.0, 3)]
    assert (found[0]["low"], found[-1]["high"]) == (-5.0, 5.0)
    assert sum(each["n"] for each in margin_histogram(torch.tensor([0.0, 100.0, -1.0]))) == 3
    assert margin_histogram(torch.zeros(0)) == []


def test_replies_of_one_length_favour_neither_side() -> None:
    """Lengths (3, 2), (2, 3) and twice (2, 2): one longer, one shorter, two alike make one half."""
    pairs = [Pair([1], [2], "human", a, b, "s", "en") for a, b in ((3, 2), (2, 3), (2, 2), (2, 2))]
    assert share_longer(pairs) == 0.5
    assert share_longer(pairs[:1]) == 1.0
    assert share_longer([]) == 0.5
    (row,) = length_statistics(pairs)
    assert (row["n"], row["chosen_tokens"], row["rejected_tokens"], row["chosen_is_longer"]) == (4, 2.25, 2.25, 0.5)


def test_correlation_by_hand() -> None:
    x = torch.tensor([1.0, 2.0, 3.0])
    assert correlation(x, 5 - 2 * x) == pytest.approx(-1.0)
    assert correlation(x, torch.tensor([1.0, 0.0, 1.0])) == pytest.approx(0.0)
    assert correlation(x, torch.ones(3)) == 0.0


@pytest.mark.checklist(29)
@pytest.mark.mutation(
    "a probe spoils nothing",
    "duihua.stages.reward_probes:PROBES",
    lambda right: {**right, "longer": lambda exchange: exchange.reply},
)
def test_probes_spoil_replies_and_count_what_the_model_prefers() -> None:
    english = Exchange([{"role": "user", "content": "what is red"}], "red is a warm color of fire", "s", "en")
    chinese = Exchange([{"role": "user", "content": "红色是什么"}], "红色是火的颜色", "s", "zh")
    for exchange in (english, chinese):
        spoilt = {name: spoil(exchange) for name, spoil in PROBES.items()}
        assert len(set(spoilt.values()) | {exchange.reply}) == len(PROBES) + 1
        assert sorted(spoilt["word_salad"].replace(" ", "")) == sorted(exchange.reply.replace(" ", ""))
    by_length = probe([english, chinese], lambda items: [float(len(text)) for _, text in items])
    assert by_length["longer"]["value"] == 0.0, "a judge of length prefers the reply said twice"
    assert by_length["cut_short"]["value"] == 1.0
    assert "off_topic" not in by_length, "neither language has another prompt here"
    green = Exchange([{"role": "user", "content": "what is green"}], "green is the color of grass", "s", "en")
    on_topic = probe([english, green], lambda items: [float(e.prompt[0]["content"][8:] in text) for e, text in items])
    assert (on_topic["off_topic"]["value"], on_topic["off_topic"]["n"]) == (1.0, 2)
    assert on_topic["prompt_copy"]["value"] == 0.0, "a judge of words sees nothing wrong in a copy of the prompt"


# -- the whole stage --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(lab: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[RewardConfig, StageContext, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("reward")
    policy = lab.policy_bundle(folder / "sft")
    config = lab.reward_config(folder)
    context = StageContext(folder / "reward", {"policy": policy}, data_directory=folder / "data", seed=2, threads=1)
    return config, context, reward.run(config, context).metrics


def test_the_stage_learns_and_reports_each_kind(trained: Any) -> None:
    config, context, metrics = trained
    assert {
        "steps", "accuracy", "kinds", "normalisation", "calibration_error", "length_correlation", "terms", "seconds",
    } <= set(metrics)  # fmt: skip
    assert metrics["accuracy"]["value"] > 0.8
    assert metrics["accuracy"]["low"] > 0.5
    assert all(metrics["kinds"][kind]["n"] > 0 for kind in ("human", "sampled", "off_topic"))
    assert metrics["steps"] == math.ceil(sum(metrics["pairs"]["train"].values()) / config.batch_pairs)
    assert sum(of["total"] for of in metrics["cut"].values()) == 1, "the over-long pair is counted"
    assert metrics["length"] == 64, "the model's context, where the config allows more"
    other = metrics["normalisation"]["verification"]
    assert abs(other["mean"]) < 3 * other["mean_standard_error"]
    assert abs(other["std"] - 1) < 3 * other["std_standard_error"]
    assert (
        json.loads((context.directory / "result.json").read_text(encoding="utf-8"))["metrics"].keys() == metrics.keys()
    )


@pytest.mark.checklist(7)
def test_the_bundle_holds_head_and_normalisation_and_the_scorer_uses_them(trained: Any, lab: Any) -> None:
    _, context, metrics = trained
    bundle = load_bundle(context.directory)
    assert bundle.kind == "reward"
    stored = json.loads((context.directory / "config.json").read_text(encoding="utf-8"))["duihua"]["normalisation"]
    assert stored["mean"] == metrics["normalisation"]["mean"]
    assert bundle.reward.score.bias is None
    prompts = lab.prompts(3)
    replies = [Reply([40, 41, lab.tokenizer.im_end_id], [0.0] * 3, True)] * 3
    raw = score_rows(bundle.reward, [[*p.ids, *replies[0].ids] for p in prompts], lab.tokenizer.pad_id)
    normal = reward_scorer(bundle)(prompts, replies)
    expected = (raw - metrics["normalisation"]["mean"]) / metrics["normalisation"]["std"]
    torch.testing.assert_close(normal, expected)
    assert not torch.allclose(normal, raw, atol=1e-2)


@pytest.mark.checklist(2)
@pytest.mark.mutation(
    "the trunk starts from random numbers", "duihua.models.heads:ScoredDecoder.initialise_score", random_trunk
)
def test_the_trunk_starts_from_the_sft_model(lab: Any, tmp_path: Path, monkeypatch: Any) -> None:
    seen: dict[str, Any] = {}
    real = stage_trainer.Trainer

    def watching(network: Any, *rest: Any, **named: Any) -> Any:
        seen["trunk"] = {name: weight.clone() for name, weight in network.decoder.state_dict().items()}
        return real(network, *rest, **named)

    monkeypatch.setattr(stage_trainer, "Trainer", watching)
    policy = lab.policy_bundle(tmp_path / "sft", seed=3)
    config = lab.reward_config(tmp_path, conversations=())
    reward.run(config, StageContext(tmp_path / "reward", {"policy": policy}, data_directory=tmp_path, threads=1))
    start = load_bundle(policy).policy.state_dict()
    for name, weight in seen["trunk"].items():
        if name != "head.weight":  # the token head is not part of a reward model
            assert torch.equal(weight, start[name]), name
    end = load_bundle(tmp_path / "reward").reward.decoder.state_dict()
    assert not torch.equal(end["embedding.weight"], start["embedding.weight"]), "and it moves from there"


def adamw(right: Any, self: RewardConfig, *arguments: Any, **named: Any) -> None:
    right(self, *arguments, **named)
    object.__setattr__(self, "optimizer", OptimizerConfig(kind="adamw", learning_rate=1e-3))


@pytest.mark.checklist(2)
@pytest.mark.mutation(
    "the reward model learns by another optimizer than the SFT model that it continues",
    "duihua.stages.configs.reward:RewardConfig.__init__",
    adamw,
)
def test_the_reward_model_learns_by_the_optimizer_and_the_rates_of_the_sft_model() -> None:
    assert RewardConfig().optimizer == SFTConfig().optimizer


class Killed(BaseException):
    """Stands for kill -9."""


def test_a_killed_stage_ends_with_the_same_bits(trained: Any, tmp_path: Path, monkeypatch: Any) -> None:
    config, context, _ = trained
    config = dataclasses.replace(config, trainer=dataclasses.replace(config.trainer, checkpoint_steps=4))
    mine = dataclasses.replace(context, directory=tmp_path / "reward")
    calls = {"left": 13}
    real = reward.Loss.__call__

    def dying(self: Any, network: Any, batch: Any) -> Any:
        calls["left"] -= 1
        if calls["left"] == 0:
            raise Killed
        return real(self, network, batch)

    monkeypatch.setattr(reward.Loss, "__call__", dying)
    with pytest.raises(Killed):
        reward.run(config, mine)
    kept = sorted(path.name for path in (tmp_path / "reward" / "replies").iterdir())
    assert kept
    reward.run(config, mine)
    whole = (context.directory / "model.safetensors").read_bytes()
    assert (tmp_path / "reward" / "model.safetensors").read_bytes() == whole


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.0}, "above 0"),
        ({"epochs": 0}, "at least 1"),
        ({"margin": -1.0}, "negative"),
        ({"cut_short_pairs": 9, "sampled_pairs": 8}, "cut_short_pairs: 9 pairs"),
        ({"preferences": [], "conversations": []}, "no source"),
        (
            {"preferences": [{"name": "dpo-en"}, {"name": "dpo-zh", "weight": 2.0}]},
            r"preferences\[1\].weight: .*found 2",
        ),
        ({"sampled_pair": 3}, "sampled_pairs"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(RewardConfig, changes)


@pytest.mark.checklist(5)
def test_one_epoch_is_the_default() -> None:
    assert RewardConfig().epochs == 1


def test_a_template_that_ends_no_reply_is_refused_before_anything_is_read(lab: Any, tmp_path: Path) -> None:
    source = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    source += "{% if add_generation_prompt %}assistant: {% endif %}"
    policy = lab.policy_bundle(tmp_path / "sft")
    template = ChatTemplate(load_bundle(policy).tokenizer)
    require_stop_token(template, "here")
    (policy / "chat_template.jinja").write_text(source, encoding="utf-8")
    with pytest.raises(DataError, match="ends no reply with a stop token"):
        require_stop_token(ChatTemplate(load_bundle(policy).tokenizer), "here")
    context = StageContext(tmp_path / "reward", {"policy": policy}, data_directory=tmp_path, threads=1)
    with pytest.raises(DataError, match="ends no reply with a stop token"):
        reward.run(lab.reward_config(tmp_path), context)
    assert not (tmp_path / "reward").exists()


def test_pairs_that_cannot_be_used_are_named_before_anything_is_sampled(lab: Any, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"name {word}", "chosen": "red", "rejected": "red"} for word in ("cat", "dog")]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = lab.reward_config(tmp_path, preferences=(SourceConfig(path=str(file), kind="preferences"),))
    context = StageContext(
        tmp_path / "reward", {"policy": lab.policy_bundle(tmp_path / "sft")}, data_directory=tmp_path, threads=1
    )
    with pytest.raises(DataError, match="chosen and rejected are the same"):
        reward.run(config, context)
    assert not (tmp_path / "reward" / "replies").exists(), "no reply was sampled"
    rows = [{"prompt": "name cat", "chosen": "red " * 90, "rejected": "blue " * 90}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = dataclasses.replace(config, conversations=(), long_pairs="leave_out")
    with pytest.raises(DataError, match=r"no pair to learn from: 1 x human pair longer than 64 tokens"):
        reward.run(config, context)


def test_a_weight_is_refused_for_pairs_alone() -> None:
    """Prompts are drawn by weight; pairs are all learnt."""
    weighed = [{"name": "chitchat", "weight": 2.0}]
    assert build(RewardConfig, {"conversations": weighed}).conversations[0].weight == 2.0
    assert build(RewardConfig, {"preferences": [{"name": "dpo-en", "weight": 1.0}]}).preferences[0].name == "dpo-en"
