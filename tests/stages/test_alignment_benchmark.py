"""The benchmark of alignment over seeds: it goes on where it was, puts the seeds together, and says what does not hold."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from duihua.errors import ConfigError

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "alignment.py"


@pytest.fixture
def benchmark() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("benchmark_alignment", BENCHMARK)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def tiny_recipe(lab: Any, folder: Path) -> Path:
    """A judge, a reward model, a PPO of two updates and a comparison of eight prompts."""
    sources = [{"path": lab.conversations(folder, 300).path, "kind": "conversations", "language": "en"}]
    pairs = [{"path": lab.preferences(folder, 120).path, "kind": "preferences", "language": "en"}]
    reward = {"preferences": pairs, "conversations": sources, "sampled_pairs": 8, "off_topic_pairs": 0, "length": 60,
              "heldout_sampled_pairs": 4, "heldout_off_topic_pairs": 0, "reply_tokens": 8, "normalisation_samples": 8,
              "verification_samples": 8}  # fmt: skip
    policy = {"policy": "runs/quickstart/sft"}
    ppo = {"sources": sources, "train_prompts": 24, "watch_prompts": 6, "heldout_prompts": 6, "prompt_tokens": 40,
           "reply_tokens": 6, "iterations": 1, "rollout_prompts": 8, "epochs": 1, "micro_batch": 4,
           "trainer": {"log_every": 1, "evaluate_every": 1}}  # fmt: skip
    compare = {
        "sources": sources,
        "prompts": 8,
        "prompt_tokens": 40,
        "reply_tokens": 6,
        "best_of": 2,
        "sample_prompts": [],
    }
    mapping = {
        "recipe": "tiny-alignment",
        "about": {"en": "a", "zh": "b"},
        "threads": 1,
        "stages": [
            {"reward": {**reward, "half": "second"}, "as": "judge", "from": policy},
            {"reward": {**reward, "half": "first"}, "from": policy},
            {"ppo": ppo, "from": {**policy, "judge": "judge"}},
            {"compare": compare, "from": {"sft": "runs/quickstart/sft", "judge": "judge"}},
        ],
    }
    path = folder / "tiny.yaml"
    path.write_text(json.dumps(mapping), encoding="utf-8")
    return path


def test_seeds_are_run_once_and_put_together(
    lab: Any, tmp_path: Path, benchmark: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.policy_bundle(tmp_path / "old" / "sft")
    words = ["--recipe", str(tiny_recipe(lab, tmp_path)), "--run", str(tmp_path / "old"), "--work", str(tmp_path / "work"),
             "--data", str(tmp_path / "data")]  # fmt: skip
    assert benchmark.main([*words, "--seeds", "1"]) == 0
    first = json.loads((tmp_path / "work" / "alignment.json").read_text(encoding="utf-8"))
    assert first["seeds"] == [1] and set(first["models"]) == {"best_of_n", "ppo"}
    capsys.readouterr()
    assert benchmark.main([*words, "--seeds", "1", "2", "--json"]) == 0
    shown = capsys.readouterr()
    assert shown.err.count("unchanged, skipped") == 4, "the first seed is not run again"
    both = json.loads(shown.out)
    assert both == json.loads((tmp_path / "work" / "alignment.json").read_text(encoding="utf-8"))
    assert both["seeds"] == [1, 2] and both["models"]["ppo"]["wins"]["1"] == first["models"]["ppo"]["wins"]["1"]
    mean = both["models"]["ppo"]["mean"]
    assert mean["n"] == 2 and mean["value"] == pytest.approx(
        sum(rate["value"] for rate in both["models"]["ppo"]["wins"].values()) / 2
    )
    assert set(both["judge_accuracy"]) == {"1", "2"}
    assert (tmp_path / "work" / "seed-2" / "report.html").is_file()
    assert benchmark.main([*words[:2], "--run", str(tmp_path / "nowhere"), *words[4:]]) == 2
    assert "neither a stage before this one nor a folder" in capsys.readouterr().err


def row(wins: float, length: tuple[float, float], repetition: tuple[float, float]) -> dict[str, Any]:
    return {
        "win_rate": {"value": wins},
        "length": {"before": length[0], "after": length[1]},
        "repetition_rate": {"change": {"value": repetition[0], "standard_error": repetition[1]}},
    }


def test_a_win_counts_only_without_longer_or_more_repetitive_replies(benchmark: ModuleType) -> None:
    assert benchmark.holds(row(0.65, (10.0, 9.0), (0.001, 0.002)), 0.6)
    assert not benchmark.holds(row(0.59, (10.0, 9.0), (0.001, 0.002)), 0.6)
    assert not benchmark.holds(row(0.65, (10.0, 11.5), (0.001, 0.002)), 0.6), "longer"
    assert not benchmark.holds(row(0.65, (10.0, 9.0), (0.005, 0.002)), 0.6), "more repetitive"


def test_a_recipe_that_compares_nothing_is_refused(benchmark: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text("recipe: other\nstages: [tokenizer]\n", encoding="utf-8")
    recipe = benchmark.recipe_of(path, tmp_path, 3, [])
    assert recipe.seed == 3
    with pytest.raises(ConfigError, match="compares nothing"):
        benchmark.compared(recipe, tmp_path)
