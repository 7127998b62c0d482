"""A gold reward out of the settings: it is measured, is told from what cannot be judged, and changes nothing that is learnt."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from duihua.cli.main import main
from duihua.config import build, to_mapping
from duihua.errors import ConfigError
from duihua.files import read_json, write_json
from duihua.models.bundle import ModelCard, Normalisation, save_bundle
from duihua.models.heads import ScoredDecoder
from duihua.stages import grpo, ppo
from duihua.stages.configs.grpo import GRPOConfig
from duihua.stages.configs.ppo import PPOConfig
from duihua.stages.configs.verifiable import RuleConfig
from duihua.stages.context import StageContext
from duihua.stages.gold import check_gold, gold_scorer
from duihua.stages.replies import Prompt, Reply
from duihua.stages.verifiable import verifiable_scorer

SHORT = RuleConfig("pattern", pattern=r"(?s).{0,12}")
"""Of the replies of at most 8 tokens that a random policy writes some pass and some do not."""
SUM = RuleConfig("arithmetic", weight=3.0)


def prompts_of(*texts: str) -> list[Prompt]:
    return [Prompt(i, [{"role": "user", "content": text}], [1], answer="red cat") for i, text in enumerate(texts)]


def replies_of(lab: Any, *texts: str) -> list[Reply]:
    return [Reply(lab.tokenizer.encode(text), [], True) for text in texts]


def stage(lab: Any, folder: Path, name: str, judge: bool = False, **changes: Any) -> tuple[PPOConfig, StageContext]:
    """A PPO stage of eight updates that is measured every fourth; every third prompt asks for a sum. judge: a second reward
    model."""
    inputs = {"policy": lab.policy_bundle(folder / "sft")}
    for role, seed in (("reward", 3), *([("judge", 4)] if judge else [])):
        network = ScoredDecoder(lab.decoder(seed=seed)).initialise_score(seed)
        card = ModelCard(title="tiny reward", stage="reward")
        save_bundle(folder / role, network, lab.tokenizer, card, normalisation=Normalisation(0.0, 1.0))
        inputs[role] = folder / role
    source = lab.conversations(folder, 600)
    lines = Path(source.path).read_text(encoding="utf-8").splitlines()
    asked = [line.replace("say ", "add 1 + 2 ") if place % 3 == 0 else line for place, line in enumerate(lines)]
    Path(source.path).write_text("\n".join(asked), encoding="utf-8")
    config = lab.config(
        sources=(source,), iterations=2, epochs=2, minibatches=2, prompt_tokens=48, train_prompts=40, watch_prompts=16,
        heldout_prompts=8, **changes,
    )  # fmt: skip
    config = dataclasses.replace(config, trainer=dataclasses.replace(config.trainer, evaluate_every=4))
    return config, StageContext(folder / name, inputs, data_directory=folder / "data", seed=4, threads=1)


def metrics(context: StageContext) -> list[dict[str, float]]:
    return [json.loads(line) for line in (context.directory / "metrics.jsonl").read_text().splitlines()]


def weights(context: StageContext) -> dict[str, torch.Tensor]:
    return load_file(context.directory / "model.safetensors")


def test_a_reply_that_the_rules_cannot_judge_has_no_score(lab: Any) -> None:
    prompts, replies = prompts_of("1 + 2", "hello", "2 + 2"), replies_of(lab, "3", "3", "no")
    score = gold_scorer((SUM,), None, lab.tokenizer)
    assert score is not None
    found = score(prompts, replies)
    assert found.isnan().tolist() == [False, True, False]
    assert float(found.nanmean()) == 1.5
    assert float(verifiable_scorer((SUM,), lab.tokenizer)(prompts, replies).mean()) == 1.0, (
        "without it: taken for wrong"
    )


def test_where_no_reply_passes_the_mean_is_nought(lab: Any) -> None:
    found = verifiable_scorer((SUM,), lab.tokenizer)(prompts_of("1 + 2"), replies_of(lab, "no"))
    assert found.dtype == torch.float32 and float(found.mean()) == 0.0


def test_a_python_rule_goes_before_the_settings_and_none_is_none(lab: Any) -> None:
    prompts, replies = prompts_of("hello"), replies_of(lab, "cat")
    score = gold_scorer((SUM,), lambda messages, text: float(len(text)), lab.tokenizer)
    assert score is not None and score(prompts, replies).tolist() == [3.0]
    assert gold_scorer((), None, lab.tokenizer) is None


def test_prompts_without_a_gold_score_are_counted_and_too_few_are_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    check_gold("ppo", (SUM,), prompts_of(*["1 + 1"] * 4), "prompts")
    assert capsys.readouterr().out == ""
    check_gold("ppo", (SUM,), prompts_of(*["1 + 1"] * 4, "hello"), "prompts to train on")
    said = capsys.readouterr()
    assert "1 of 5 prompts to train on have no gold score (the prompt holds no sum)" in said.out + said.err
    with pytest.raises(ConfigError, match=r"ppo\.gold: the gold rules can judge replies to 3 of 4 prompts") as caught:
        check_gold("ppo", (SUM,), prompts_of(*["1 + 1"] * 3, "hello"), "prompts")
    assert "a pattern" in str(caught.value) and "\n" not in str(caught.value)


def test_gold_rules_are_measured_and_change_nothing_that_is_learnt(
    lab: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two thirds of the prompts hold no sum: they are trained on all the same."""
    config, context = stage(lab, tmp_path, "plain")
    ppo.run(config, context)
    assert not any("gold_score" in line or "heldout_judge" in line for line in metrics(context))
    capsys.readouterr()
    measured = dataclasses.replace(context, directory=tmp_path / "gold")
    found = ppo.run(dataclasses.replace(config, gold=(SHORT, SUM)), measured).metrics
    plain, other = weights(context), weights(measured)
    assert all(torch.equal(plain[name], other[name]) for name in plain)
    said = capsys.readouterr()
    assert re.search(r"\d+ of 40 prompts to train on have no gold score", said.out + said.err)
    assert re.search(r"rollout 0: score \S+, gold \+\d", said.out + said.err)
    scores = [line["gold_score"] for line in metrics(measured) if "gold_score" in line]
    assert len(scores) == 8 and all(0.0 <= score <= 4.0 for score in scores) and max(scores) > 0.0
    assert read_json(tmp_path / "gold" / "rollouts" / "00000.json")["figures"]["gold_score"] == scores[0]
    history = found["over_optimisation"]
    assert (history["judge"], history["best_by"]) == ("gold", "heldout_judge")
    assert all(0.0 <= row["heldout_judge"] <= 4.0 and "heldout_gold" not in row for row in history["rows"])
    trained = dataclasses.replace(context, directory=tmp_path / "trained", inputs={"policy": context.inputs["policy"]})
    ppo.run(config, trained, reward=lambda messages, text: float(len(text) <= 12))
    others = weights(trained)
    assert not all(torch.equal(plain[name], others[name]) for name in plain), "the check sees what is trained on"


def test_beside_a_judge_the_gold_reward_has_a_figure_of_its_own(lab: Any, tmp_path: Path) -> None:
    config, context = stage(lab, tmp_path, "both", judge=True, gold=(SHORT,))
    history = ppo.run(config, context).metrics["over_optimisation"]
    assert (history["judge"], history["best_by"]) == ("reward_model", "heldout_judge")
    rows = history["rows"]
    assert [row["step"] for row in rows] == [0, 4, 8]
    assert all(0.0 <= row["heldout_gold"] <= 1.0 for row in rows)
    assert [row["heldout_gold"] for row in rows] != [row["heldout_judge"] for row in rows]
    assert all("heldout_gold" in line for line in metrics(context) if "heldout_judge" in line)


def test_gold_rules_stand_beside_other_rules_that_are_trained_on(lab: Any, tmp_path: Path) -> None:
    config, context = stage(lab, tmp_path, "grpo")
    settings = GRPOConfig(
        sources=config.sources, iterations=2, rollout_prompts=8, group=4, minibatches=2, reply_tokens=8, prompt_tokens=48,
        train_prompts=40, watch_prompts=16, heldout_prompts=8, samples=0, rules=(RuleConfig("answer"),), gold=(SHORT,),
        optimizer=config.optimizer, trainer=config.trainer,
    )  # fmt: skip
    alone = dataclasses.replace(context, inputs={"policy": context.inputs["policy"]})
    history = grpo.run(settings, alone).metrics["over_optimisation"]
    assert (
        history["judge"] == "gold" and history["rows"][0]["heldout_reward"] == 0.0 < history["rows"][0]["heldout_judge"]
    )
    assert all("gold_score" in line for line in metrics(alone) if "learning_rate" in line)


def test_a_gold_reward_that_cannot_work_is_refused_in_one_line(lab: Any, tmp_path: Path) -> None:
    config, context = stage(lab, tmp_path, "refused")
    numbers = RuleConfig("answer", compare="number")
    with pytest.raises(
        ConfigError, match=r"ppo\.gold: .* 0 of 40 prompts to train on.*the data's reply holds no number"
    ):
        ppo.run(dataclasses.replace(config, gold=(numbers,)), context)
    assert not (context.directory / "rollouts").exists()
    same = [{"kind": "answer"}]
    with pytest.raises(ConfigError, match="the very rules that are trained on"):
        build(GRPOConfig, {"rules": same, "gold": same}, "grpo")
    assert build(GRPOConfig, {"rules": [*same, {"kind": "arithmetic"}], "gold": same}, "grpo").gold == (
        RuleConfig("answer"),
    )
    with pytest.raises(ConfigError, match="needs a pattern"):
        build(PPOConfig, {"gold": [{"kind": "pattern"}]}, "ppo")


def test_a_recipe_states_a_gold_reward_and_its_report_draws_it(lab: Any, tmp_path: Path) -> None:
    config, context = stage(lab, tmp_path, "unused")
    inputs = {role: str(path) for role, path in context.inputs.items()}
    recipe = {
        "recipe": "gold", "seed": 4, "threads": 1,
        "stages": [{"ppo": {**to_mapping(config), "gold": [{"kind": "pattern", "pattern": "(?s).{0,12}"}]}, "from": inputs}],
    }  # fmt: skip
    write_json(tmp_path / "gold.yaml", recipe)
    command = ["run", str(tmp_path / "gold.yaml"), "--data", str(tmp_path / "data")]
    assert main([*command, "--output", str(tmp_path / "run")]) == 0
    assert read_json(tmp_path / "run" / "ppo" / "result.json")["metrics"]["over_optimisation"]["judge"] == "gold"
    assert "a gold rule that it is not trained on" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert main([*command, "--output", str(tmp_path / "none"), "--set", "ppo.gold=[]"]) == 0
    without = (tmp_path / "none" / "report.html").read_text(encoding="utf-8")
    assert "a gold rule that it is not trained on" not in without and "Was the reward gamed?" in without


def test_the_command_of_the_stage_takes_a_gold_reward(
    lab: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, context = stage(lab, tmp_path, "command")
    write_json(tmp_path / "ppo.yaml", {"ppo": to_mapping(config)})
    roles = [word for role, path in context.inputs.items() for word in ("--input", f"{role}={path}")]
    words = ["ppo", "--config", str(tmp_path / "ppo.yaml"), *roles, "--data", str(tmp_path / "data"), "--json"]
    assert main([*words, "--output", str(tmp_path / "one"), "--set", "gold=[{kind: answer}]"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["config"]["gold"][0]["kind"] == "answer" and "gold_score" in outcome["metrics"]["last_update"]
    assert main([*words, "--output", str(tmp_path / "two"), "--set", "gold=[{kind: answr}]"]) == 2
    assert "gold" in capsys.readouterr().err
