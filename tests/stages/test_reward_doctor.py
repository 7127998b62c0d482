"""The doctor of reward models: what it finds on held-out data, and what it says of models that are unfit in a known way."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from duihua.cli.main import main
from duihua.errors import BundleError
from duihua.models.bundle import ModelCard, Normalisation, load_bundle, save_bundle
from duihua.stages import reward
from duihua.stages.configs.doctors import RewardDoctorConfig
from duihua.stages.context import StageContext
from duihua.stages.reward_doctor import diagnose
from duihua.stages.reward_findings import (
    accuracy_findings,
    calibration_finding,
    length_findings,
    normalisation_finding,
    probe_findings,
    verify,
)
from duihua.stages.reward_measures import share
from duihua.text.tokenizer import Tokenizer

CONFIG = RewardDoctorConfig()


def figures(right: int = 150, n: int = 200, **changes: Any) -> dict[str, Any]:
    """Measured figures with `right` of `n` pairs in the right order."""
    found = share([place < right for place in range(n)])
    source = {"source": "s", "kind": "human", **found}
    return {
        "accuracy": found, "kinds": {"off_topic": found}, "sources": [source], "calibration_error": 0.05, "margins": [{}],
        "length_correlation": 0.1, "length_correlation_of_the_policy": None, "chosen_is_longer": 0.5, **changes,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("right", "n", "states"),
    [(150, 200, ["ok"]), (110, 200, ["problem"]), (1150, 2000, ["problem"]), (45, 50, ["problem"]), (50, 200, ["problem"] * 2)],
    ids=["0.75", "chance inside the interval", "0.575 is under 0.6", "too few pairs", "turned round"],
)  # fmt: skip
def test_accuracy_is_judged_with_its_interval(right: int, n: int, states: list[str]) -> None:
    assert [finding.state for finding in accuracy_findings(figures(right, n), CONFIG)] == states


def test_calibration_and_length_have_thresholds_that_are_settings() -> None:
    assert calibration_finding(figures(), CONFIG).state == "ok"
    assert calibration_finding(figures(calibration_error=0.3), CONFIG).state == "problem"
    assert calibration_finding(
        figures(calibration_error=0.3), RewardDoctorConfig(largest_calibration_error=0.4)
    ).state == "ok"  # fmt: skip
    assert {f.state for f in length_findings(figures(), CONFIG)} == {"ok"}
    longer = length_findings(figures(length_correlation=0.7), CONFIG)[0]
    assert longer.state == "problem" and "longer" in longer.meaning
    own = length_findings(figures(length_correlation_of_the_policy=-0.7), CONFIG)[1]
    assert own.check == "length, own replies" and "shorter" in own.meaning
    assert length_findings(figures(chosen_is_longer=0.2), CONFIG)[-1].state == "note"


def test_a_probe_is_a_problem_only_where_chance_is_ruled_out() -> None:
    """20 of 100 lies wholly under one half; 45 of 100 does not; 90 of 100 is as it should be."""
    probes = {name: {"value": v, "n": 100, "description": name} for name, v in (("a", 0.2), ("b", 0.45), ("c", 0.9))}
    assert [finding.state for finding in probe_findings(probes, CONFIG)] == ["problem", "note", "ok"]
    assert probe_findings({}, CONFIG)[0].state == "note"


def test_normalisation_is_verified_by_hand() -> None:
    """Raw 3 and 7 under mean 5 and deviation 2 are -1 and 1: mean 0, deviation sqrt 2 (n - 1)."""
    found = verify(torch.tensor([3.0, 7.0]), Normalisation(5.0, 2.0))
    assert found["mean"] == 0.0
    assert found["std"] == pytest.approx(2**0.5)
    assert found["mean_standard_error"] == pytest.approx(1.0)
    generator = torch.Generator().manual_seed(0)
    scores = 7.0 + 3.0 * torch.randn(4000, generator=generator)
    states = [
        normalisation_finding(known, verify(scores, known), {}, CONFIG).state
        for known in (
            Normalisation(7.0, 3.0),
            Normalisation(7.45, 3.0),
            Normalisation(4.0, 3.0),
            Normalisation(7.0, 1.5),
        )
    ]
    assert states == ["ok", "note", "problem", "problem"]
    assert normalisation_finding(None, {}, {}, CONFIG).state == "problem"
    assert normalisation_finding(Normalisation(0.0, 1.0), {}, {}, CONFIG).state == "note", "nothing to verify it with"


@pytest.fixture(scope="module")
def trained(lab: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """(reward bundle, policy bundle, data directory) of a stage run."""
    folder = tmp_path_factory.mktemp("doctor")
    policy = lab.policy_bundle(folder / "sft")
    config = lab.reward_config(folder, sampled_pairs=60, off_topic_pairs=20)
    context = StageContext(folder / "reward", {"policy": policy}, data_directory=folder, seed=2, threads=1)
    reward.run(config, context)
    from duihua.config import to_mapping
    from duihua.files import write_json

    write_json(folder / "reward" / "settings.json", to_mapping(config))
    return folder / "reward", policy, folder


def test_a_trained_model_is_examined_on_the_sources_it_was_trained_with(trained: Any) -> None:
    bundle, policy, data = trained
    config = RewardDoctorConfig(heldout_pairs=12, least_pairs=5)
    found = diagnose(bundle, config, data, policy)
    states = {finding.check: finding.state for finding in found.findings}
    assert states["accuracy"] == "ok"
    measured = found.measured
    assert measured["kinds"]["human"]["n"] and measured["kinds"]["sampled"]["n"] and measured["kinds"]["off_topic"]["n"]
    assert measured["normalisation"]["verification"]["n"] > 5
    assert measured["length_correlation_of_the_policy"] is not None
    assert {"repeated_text", "word_salad", "prompt_copy", "longer", "off_topic"} <= set(measured["probes"])
    assert sum(row["n"] for row in measured["calibration_curve"]) == measured["accuracy"]["n"]
    json.dumps(found.to_mapping(), allow_nan=False)
    without = diagnose(bundle, config, data)
    assert without.measured["kinds"]["sampled"]["n"] == 0, "nothing is sampled without a policy"
    assert without.measured["normalisation"]["at_training"], "what training had checked stands in"


def test_a_policy_in_a_folder_of_versions_is_found(trained: Any, tmp_path: Path) -> None:
    bundle, policy, data = trained
    versions = {"format": 1, "promoted": "v0", "versions": [{"name": "v0", "bundle": str(policy)}], "promotions": []}
    (tmp_path / "versions.json").write_text(json.dumps(versions), encoding="utf-8")
    found = diagnose(bundle, RewardDoctorConfig(heldout_pairs=12, least_pairs=5), data, tmp_path)
    assert found.measured["kinds"]["sampled"]["n"]


def test_a_model_of_random_scores_is_not_fit(trained: Any, lab: Any, tmp_path: Path) -> None:
    bundle, policy, data = trained
    judge = load_bundle(bundle)
    judge.reward.initialise_score(99)
    card = ModelCard(title="random", stage="reward")
    save_bundle(tmp_path / "random", judge.reward, lab.tokenizer, card, normalisation=judge.normalisation)
    (tmp_path / "random" / "settings.json").write_bytes((bundle / "settings.json").read_bytes())
    found = diagnose(tmp_path / "random", RewardDoctorConfig(heldout_pairs=12), data, policy)
    assert not found.fit
    assert "accuracy" in {finding.check for finding in found.problems}


def test_a_policy_of_another_tokenizer_is_refused(trained: Any, lab: Any, tmp_path: Path) -> None:
    bundle, policy, data = trained
    other = Tokenizer.train(["something else entirely, and more of it"] * 9, 280)
    save_bundle(tmp_path / "other", load_bundle(policy).policy, other, ModelCard(title="x", stage="sft"))
    with pytest.raises(BundleError, match="another tokenizer"):
        diagnose(bundle, RewardDoctorConfig(), data, tmp_path / "other")


def test_the_commands_examine_and_score(trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, policy, data = trained
    words = [str(bundle), "--policy", str(policy), "--data", str(data), "--heldout-pairs", "12", "--json"]
    outcomes = []
    for verb in (["reward", "doctor"], ["doctor", "reward"]):
        assert main([*verb, *words, "--least-pairs", "1000"]) == 1
        outcomes.append(json.loads(capsys.readouterr().out))
    assert outcomes[0] == outcomes[1]
    assert any(line.startswith("accuracy") for line in outcomes[0]["why_not"])

    rows = [
        {"prompt": "name red 1", "chosen": "red sings", "rejected": "zzz 3", "id": 7},
        {"chosen": "\n\nHuman: name red\n\nAssistant: red sings", "rejected": "\n\nHuman: name red\n\nAssistant: zzz"},
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps(rows[0]) + "\n")
    assert main(["reward", "score", str(bundle), str(file)]) == 0
    scored = json.loads(capsys.readouterr().out)
    assert scored["id"] == 7 and scored["reward"]["margin"] > 0 and scored["reward"]["probability"] > 0.5
    assert scored["reward"]["margin"] == pytest.approx(scored["reward"]["chosen"] - scored["reward"]["rejected"])
    file.write_text(json.dumps({"messages": [{"role": "user", "content": "name red 1"},
                                             {"role": "assistant", "content": "red sings"}]}) + "\n")  # fmt: skip
    assert main(["reward", "score", str(bundle), str(file), "--json"]) == 0
    one = json.loads(capsys.readouterr().out)
    assert one["normalised"] and one["rewards"][0]["score"] == pytest.approx(scored["reward"]["chosen"], abs=1e-5)
    file.write_text(json.dumps(rows[1]) + "\n" + json.dumps({**rows[1], "rejected": rows[1]["chosen"]}) + "\n")
    assert main(["reward", "score", str(bundle), str(file)]) == 2
    assert "pairs.jsonl:2" in capsys.readouterr().err


def test_settings_of_the_doctor_are_checked() -> None:
    from duihua.config import build
    from duihua.errors import ConfigError

    with pytest.raises(ConfigError, match="between 0 and 1"):
        build(RewardDoctorConfig, {"least_accuracy": 1.5})
    assert dataclasses.replace(CONFIG, least_accuracy=0.9).least_accuracy == 0.9
