"""The comparison of all models by hand, the whole stage on files, and two reward models that share no training pair."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from duihua.data.records import LeftOut, Preference
from duihua.errors import BundleError, ConfigError
from duihua.models.bundle import ModelCard, Normalisation, save_bundle
from duihua.models.heads import ScoredDecoder
from duihua.stages import compare
from duihua.stages.best_of_n import Candidates, kl_bound
from duihua.stages.compare_tables import (
    Candidate,
    Written,
    against,
    best_of_curve,
    frontier,
    matrix,
    remembered,
    time_machine,
    worse,
)
from duihua.stages.configs.compare import CompareConfig
from duihua.stages.configs.evaluate import SamplePrompt
from duihua.stages.configs.verifiable import RuleConfig
from duihua.stages.context import StageContext
from duihua.stages.replies import Prompt, Reply
from duihua.stages.reward_pairs import OTHER_HALF, PairData, PairMaker, in_half
from duihua.text.chat_template import ChatTemplate
from duihua.text.tokenizer import Tokenizer

PROMPTS = [Prompt(i, [{"role": "user", "content": f"p{i}"}], [7], "s", "en") for i in range(4)]


def by_first_id(prompts: Sequence[Prompt], replies: Sequence[Reply]) -> Tensor:
    """A judge that anyone can be: the first id of a reply is its score."""
    return torch.tensor([float(reply.ids[0]) for reply in replies])


def said(scores: Sequence[int], kl: Any = None, lengths: Sequence[int] | None = None) -> Written:
    """A model whose replies score so much, each of two tokens or of so many."""
    replies = [Reply([score] * length, [], True) for score, length in zip(scores, lengths or [2] * 4, strict=True)]
    return Written(
        replies, [f"text {score}" for score in scores], [float(s) for s in scores], [2.0 * s for s in scores], kl
    )


WRITTEN = {
    "sft": said([5, 5, 5, 5], 0.0),
    "dpo": said([6, 6, 6, 1], [1.0, 2.0, 3.0, 2.0], [3, 3, 3, 3]),
    "ppo": said([7, 7, 5, 7], [4.0, 4.0, 4.0, 4.0]),
}


def test_each_model_meets_each_that_stands_before_it() -> None:
    rows = {(row["model"], row["over"]): row for row in matrix(PROMPTS, WRITTEN, by_first_id, seed=1)}
    assert set(rows) == {("dpo", "sft"), ("ppo", "sft"), ("ppo", "dpo")}
    assert (rows["dpo", "sft"]["wins"], rows["dpo", "sft"]["losses"]) == (3, 1)
    assert rows["ppo", "sft"]["value"] == pytest.approx(3.5 / 4), "equal replies tie, and a tie is half a win"
    assert rows["ppo", "dpo"]["value"] == pytest.approx(3 / 4)
    turned = matrix(PROMPTS, WRITTEN, lambda p, r: -by_first_id(p, r), seed=1)
    assert turned[0]["value"] == pytest.approx(1 / 4), "the same table sees a judge that is turned round"


def test_gains_are_paired_and_what_the_judge_does_not_see_stands_beside() -> None:
    found = against(PROMPTS, WRITTEN, "sft", by_first_id, seed=1)
    assert set(found) == {"dpo", "ppo"}
    dpo = found["dpo"]
    assert dpo["judge_gain"]["value"] == pytest.approx((1 + 1 + 1 - 4) / 4)
    assert dpo["judge_gain"]["standard_error"] == pytest.approx(2.5 / math.sqrt(4)), "differences 1, 1, 1, -4: s = 2.5"
    assert dpo["reward_gain"]["value"] == pytest.approx(2 * dpo["judge_gain"]["value"])
    assert dpo["kl_nats"] == 2.0
    assert dpo["length"]["before"] == 2.0 and dpo["length"]["change"]["value"] == 1.0
    assert found["ppo"]["length"]["change"]["value"] == 0.0
    unpaired = math.sqrt(2.5**2 / 4 + 0.0)
    other = against(PROMPTS, {**WRITTEN, "sft": said([4, 4, 4, 9], 0.0)}, "sft", by_first_id, seed=1)["dpo"][
        "judge_gain"
    ]
    assert other["standard_error"] != pytest.approx(unpaired, rel=0.05), "the differences count, not the two spreads"


def test_what_fell_furthest_comes_first_and_what_did_not_fall_is_not_shown() -> None:
    found = worse(PROMPTS, WRITTEN, "sft", 5)
    assert [row["prompt"] for row in found["dpo"]] == ["p3"]
    assert (found["dpo"][0]["judge_before"], found["dpo"][0]["judge_after"]) == (5.0, 1.0)
    assert found["ppo"] == [] and "sft" not in found
    deeper = {**WRITTEN, "dpo": said([2, 6, 4, 1], [1.0] * 4)}
    assert [row["prompt"] for row in worse(PROMPTS, deeper, "sft", 2)["dpo"]] == ["p3", "p0"]


def test_the_curve_of_best_of_n_is_the_judges_score_of_what_the_reward_chooses() -> None:
    rewards, judged = torch.tensor([[3.0, 1.0, 2.0], [1.0, 2.0, 3.0]]), torch.tensor([[0.0, 6.0, 3.0], [1.0, 1.0, 4.0]])
    curve = best_of_curve(Candidate([], 0.0, rewards, judged))
    assert curve[0]["gain"] == 0.0 and curve[0]["kl"] == 0.0
    # Of three, the first prompt's best by the reward is judged 0 and the second's 4; their means are 3 and 2.
    assert curve[2]["gain"] == pytest.approx(((0 - 3) + (4 - 2)) / 2)
    # Of two: the best is the first in 2 of 3 pairs, the third in 1 of 3; and in the second prompt the third in 2 of 3.
    assert curve[1]["gain"] == pytest.approx(((0 * 2 / 3 + 3 / 3 - 3) + (4 * 2 / 3 + 1 / 3 - 2)) / 2)
    assert curve[2]["kl"] == kl_bound(3)
    swapped = best_of_curve(Candidate([], 0.0, judged, rewards))
    assert swapped[2]["gain"] != pytest.approx(curve[2]["gain"]), "who chooses and who judges are not the same"


def test_the_best_of_each_prompt_is_the_rewards_choice() -> None:
    rows = [[Reply([10 + n], [], True) for n in range(3)] for _ in range(2)]
    found = Candidates(PROMPTS[:2], rows, torch.tensor([[3.0, 1.0, 2.0], [1.0, 2.0, 3.0]]))
    best = Candidate.of(found, by_first_id)
    assert [reply.ids for reply in best.replies] == [[10], [12]]
    assert best.judged_pn is not None and best.judged_pn.tolist() == [[10, 11, 12], [10, 11, 12]]
    assert best.kl == kl_bound(3)


def test_no_reply_is_read_twice() -> None:
    asked: list[int] = []

    def counted(prompts: Sequence[Prompt], replies: Sequence[Reply]) -> Tensor:
        asked.extend(prompt.index for prompt in prompts)
        return by_first_id(prompts, replies)

    score = remembered(counted)
    replies = [Reply([index], [], True) for index in (3, 4, 3, 5)]
    prompts = [PROMPTS[0], PROMPTS[1], PROMPTS[0], PROMPTS[2]]
    assert score(prompts, replies).tolist() == [3.0, 4.0, 3.0, 5.0]
    assert score(prompts[::-1], replies[::-1]).tolist() == [5.0, 3.0, 4.0, 3.0]
    assert sorted(asked) == [0, 1, 2]
    score([PROMPTS[1]], [Reply([3], [], True)])
    assert sorted(asked) == [0, 1, 1, 2], "the same reply to another prompt is another one"


def test_frontier_and_time_machine_hold_every_model() -> None:
    found = frontier(WRITTEN, "sft", [{"n": 1, "gain": 0.0, "standard_error": 0.1, "kl": 0.0}])
    assert [(point["model"], point["kl"]) for point in found["points"]] == [("dpo", 2.0), ("ppo", 4.0)]
    assert found["points"][1]["value"] == pytest.approx(6 / 4)
    shown = time_machine(PROMPTS[:2], {"sft": ["a", "b"], "ppo": ["c", "d"]})
    assert [one["replies"] for one in shown] == [{"sft": "a", "ppo": "c"}, {"sft": "b", "ppo": "d"}]


# -- the stage on files -----------------------------------------------------------------------------------------------


def reward_bundle(lab: Any, folder: Path, seed: int) -> Path:
    network = ScoredDecoder(lab.decoder(seed=seed)).initialise_score(seed)
    card = ModelCard(title="tiny reward", stage="reward")
    save_bundle(folder, network, lab.tokenizer, card, normalisation=Normalisation(0.1, 0.9))
    return folder


def stage(lab: Any, folder: Path, *roles: str, **changes: Any) -> tuple[CompareConfig, StageContext]:
    """Bundles for these roles; `dpo` has the very weights of `sft`, the others have their own."""
    seeds = {"base": 5, "sft": 0, "dpo": 0, "ppo": 3, "grpo": 4}
    inputs = {}
    for role in roles:
        if role in seeds:
            inputs[role] = lab.policy_bundle(folder / role, seed=seeds[role])
        else:
            inputs[role] = reward_bundle(lab, folder / role, seed=7 if role == "reward" else 8)
    config = CompareConfig(
        sources=(lab.conversations(folder, 600),), prompts=12, prompt_tokens=40, reply_tokens=8, best_of=3, slots=16, worse=2,
        sample_prompts=(SamplePrompt("en", ("say cat dog 1",)), SamplePrompt("en", ("say red", "red", "say blue"))),
    )  # fmt: skip
    context = StageContext(folder / "compare", inputs, data_directory=folder / "data", seed=4, threads=1)
    return dataclasses.replace(config, **changes), context


def test_the_stage_compares_every_model_and_a_copy_ties_at_no_distance(lab: Any, tmp_path: Path) -> None:
    config, context = stage(lab, tmp_path, "base", "sft", "dpo", "ppo", "reward", "judge")
    result = compare.run(config, context)
    assert result.bundle is None
    stored = json.loads((tmp_path / "compare" / "result.json").read_text(encoding="utf-8"))["metrics"]
    assert stored["models"] == ["base", "sft", "best_of_n", "dpo", "ppo"]
    assert len(stored["matrix"]) == 10 and all(row["n"] == 12 for row in stored["matrix"])
    copy, other = stored["against_reference"]["dpo"], stored["against_reference"]["ppo"]
    assert copy["win_rate"]["value"] == 0.5 and copy["win_rate"]["ties"] == 12
    assert copy["kl_nats"] == 0.0 and copy["judge_gain"]["value"] == 0.0 and copy["length"]["change"]["value"] == 0.0
    assert other["kl_nats"] != 0.0 and other["win_rate"]["ties"] < 12, "another model is at a distance and seldom ties"
    assert stored["against_reference"]["best_of_n"]["reward_gain"]["value"] > 0
    assert stored["against_reference"]["best_of_n"]["kl_nats"] == pytest.approx(kl_bound(3))
    assert [row["n"] for row in stored["frontier"]["best_of_n"]] == [1, 2, 3]
    assert [set(one["replies"]) for one in stored["time_machine"]] == [set(stored["models"])] * 2
    assert stored["judge"] == "reward" and stored["judge_is_the_training_reward"] is False
    fewer = {role: path for role, path in context.inputs.items() if role in ("sft", "ppo", "judge")}
    again = dataclasses.replace(context, directory=tmp_path / "again", inputs=fewer)
    found = compare.run(config, again).metrics["against_reference"]
    other.pop("reward_gain")
    assert {name: value for name, value in found["ppo"].items() if name != "reward_gain"} == other, (
        "same seed, same table"
    )
    moved = dataclasses.replace(again, directory=tmp_path / "moved", seed=5)
    assert compare.run(config, moved).metrics["against_reference"]["ppo"]["length"] != other["length"]


def test_rules_judge_where_there_is_no_judge_and_best_of_n_needs_a_reward(lab: Any, tmp_path: Path) -> None:
    rules = (RuleConfig(kind="pattern", pattern=".*"),)
    config, context = stage(lab, tmp_path, "sft", "ppo", rules=rules)
    found = compare.run(config, context).metrics
    assert found["judge"] == "rules" and found["models"] == ["sft", "ppo"]
    assert found["matrix"][0]["ties"] == 12, "a rule that every reply passes prefers none"
    with pytest.raises(ConfigError, match="nothing that judges"):
        compare.run(dataclasses.replace(config, rules=()), context)
    with pytest.raises(ConfigError, match="one model, and nothing to compare"):
        compare.run(config, dataclasses.replace(context, inputs={"sft": context.inputs["sft"]}))


def test_a_judge_that_was_trained_against_is_said_and_another_tokenizer_refused(
    lab: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, context = stage(lab, tmp_path, "sft", "ppo", "reward")
    shutil.copytree(tmp_path / "reward", tmp_path / "judge")
    inputs = {**context.inputs, "judge": tmp_path / "judge"}
    found = compare.run(config, dataclasses.replace(context, inputs=inputs)).metrics
    assert found["judge_is_the_training_reward"] is True
    said_there = capsys.readouterr()
    assert "was trained against" in said_there.out + said_there.err
    alien = Tokenizer.train(["quite another text, with other words"] * 4, 280)
    save_bundle(tmp_path / "alien", lab.decoder(1), alien, ModelCard(title="alien", stage="ppo"))
    wrong = dataclasses.replace(context, directory=tmp_path / "wrong", inputs={**inputs, "ppo": tmp_path / "alien"})
    with pytest.raises(BundleError, match="another tokenizer"):
        compare.run(config, wrong)
    assert not wrong.directory.exists(), "refused before anyone wrote a reply"


# -- two halves -------------------------------------------------------------------------------------------------------


def test_each_conversation_belongs_to_one_half_whatever_its_turn() -> None:
    openings = [[{"role": "user", "content": f"question {i}"}] for i in range(400)]
    first = [prompt for prompt in openings if in_half(prompt, "first")]
    assert 160 < len(first) < 240
    assert all(in_half(prompt, "first") != in_half(prompt, "second") for prompt in openings)
    assert all(in_half(prompt, "both") for prompt in openings)
    later = [[*prompt, {"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}] for prompt in openings]
    assert [in_half(one, "first") for one in later] == [in_half(one, "first") for one in openings]


def test_two_halves_share_no_training_prompt_and_hold_out_the_same(lab: Any, tmp_path: Path) -> None:
    def made(half: str, split: Any) -> tuple[list[Preference], LeftOut]:
        config = lab.reward_config(tmp_path, half=half)
        maker = PairMaker(config, ChatTemplate(lab.tokenizer), 64, lambda *_: [], tmp_path, "key", seed=1)
        from duihua.data.source import open_source

        data = PairData()
        found = maker.judged([open_source(config.preferences[0], tmp_path)], split, data)
        return found, data.left_out[split]

    both, first, second = (made(half, "train") for half in ("both", "first", "second"))
    prompts = [{pair.prompt[0]["content"] for pair in found} for found, _ in (both, first, second)]
    assert prompts[1] | prompts[2] == prompts[0] and not prompts[1] & prompts[2]
    assert min(len(prompts[1]), len(prompts[2])) > len(prompts[0]) / 4
    assert first[1].counts[OTHER_HALF] == len(prompts[2]) and OTHER_HALF not in both[1].counts
    assert made("first", "heldout")[0] == made("second", "heldout")[0] != []
