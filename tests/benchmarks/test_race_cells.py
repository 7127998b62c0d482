"""Which trainings a race runs, in what order, what it takes from its file, and when a goal is met."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from duihua.errors import ConfigError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def race(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The script, with a system that "trains" at once: fewer bits with more seconds."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    script = importlib.import_module("pretrain_race")
    yield script
    for name in [name for name in sys.modules if name.partition(".")[0] in ("race", "pretrain_race", "race_ablation")]:
        del sys.modules[name]


@pytest.fixture
def calls(race: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float, int]]:
    made: list[tuple[str, float, int]] = []

    def run_system(system: str, seconds: float, seed: int, setup: Any) -> dict[str, Any]:
        made.append((system, seconds, seed))
        figures = dict.fromkeys(("tokens", "parameters", "steps", "setup_seconds", "step_seconds"), 1.0)
        return {"bits_per_byte": {"duihua": 2.0, "nanochat": 2.1, "nanogpt": 2.4}[system] + 8 / seconds, **figures} | {
            "seconds": seconds
        }

    monkeypatch.setattr(sys.modules["race.cells"], "run_system", run_system)
    return made


@pytest.fixture
def setup(race: Any, tmp_path: Path) -> Any:
    for peer, names in sys.modules["race.systems"].READ.items():
        for name in names:
            (tmp_path / peer / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / peer / name).write_text(name)
    return sys.modules["race.systems"].Setup(
        data=tmp_path, work=tmp_path, nanochat=tmp_path / "nanochat", nanogpt=tmp_path / "nanogpt"
    )


def wanted(**changed: Any) -> argparse.Namespace:
    given = {
        "systems": ["duihua", "nanochat", "nanogpt"],
        "seconds": 80.0,
        "seed": [1, 2],
        "goal": True,
        "alternate": True,
    }
    return argparse.Namespace(**given | changed)


def test_systems_take_turns_and_turn_round(race: Any, setup: Any) -> None:
    cells = race.cells_of(wanted(), setup)
    first, second = [[(cell.system, cell.seconds) for cell in cells if cell.seed == seed] for seed in (1, 2)]
    assert first == [("duihua", 80), ("nanochat", 80), ("nanogpt", 80), ("duihua", 40), ("duihua", 20)]
    assert second == first[::-1]
    plain = race.cells_of(wanted(alternate=False, goal=False), setup)
    assert [cell.system for cell in plain] == ["duihua", "nanochat", "nanogpt"] * 2


def test_a_race_goes_on_where_it_stopped_and_another_one_is_another(
    race: Any, calls: list[Any], setup: Any, tmp_path: Path
) -> None:
    run_cells, output = sys.modules["race.cells"].run_cells, tmp_path / "race.jsonl"
    cells = race.cells_of(wanted(goal=False), setup)
    half = run_cells(cells[:4], output)
    assert run_cells(cells, output)[:4] == half and len(calls) == 6
    (tmp_path / "nanogpt" / "model.py").write_text("another version")
    again = race.cells_of(wanted(goal=False), setup)
    run_cells(again, output)
    assert calls[6:] == [("nanogpt", 80.0, 1), ("nanogpt", 80.0, 2)]
    other = race.cells_of(wanted(goal=False, systems=["duihua"]), setup.__class__(tmp_path, tmp_path, threads=1))
    run_cells(other, output)
    assert calls[8:] == [("duihua", 80.0, 1), ("duihua", 80.0, 2)]


def test_a_goal_is_met_by_the_part_of_the_time_and_not_by_all_of_it(
    race: Any, calls: list[Any], setup: Any, tmp_path: Path
) -> None:
    rows = sys.modules["race.cells"].run_cells(race.cells_of(wanted(), setup), tmp_path / "race.jsonl")
    medians = sys.modules["race.cells"].medians
    table = {label: medians([row for row in rows if row["label"] == label]) for label in {row["label"] for row in rows}}
    found = {goal["peer"]: goal for goal in race.goals_of(table)}
    assert found["nanochat"] == {
        "peer": "nanochat", "part_of_the_time": 0.5, "duihua": 2.2, "nanochat": 2.2, "met": True
    }  # fmt: skip
    assert found["nanogpt"]["duihua"] == 2.4 and found["nanogpt"]["met"]
    table[race.goal_label(2)]["bits_per_byte"] = 2.21
    assert table["duihua"]["bits_per_byte"] < 2.2 and not race.goals_of(table)[0]["met"]


def test_a_peer_without_its_snapshot_is_refused(setup: Any, tmp_path: Path) -> None:
    (tmp_path / "nanochat" / "scripts" / "base_train.py").unlink()
    with pytest.raises(ConfigError, match=r"no snapshot of the peer there.*base_train"):
        setup.folder("nanochat")
    assert setup.folder("nanogpt") == (tmp_path / "nanogpt").resolve()


def test_a_variant_is_a_name_or_its_settings(race: Any) -> None:
    ablation = importlib.import_module("race_ablation")
    assert ablation.variant("rows=4") == ("rows=4", ("pretrain.rows=4",))
    assert ablation.variant("both: pretrain.rows=4 pretrain.length=128")[1] == (
        "pretrain.rows=4",
        "pretrain.length=128",
    )
    for wrong in ("rows=5", "name:", "name: pretrain.rows"):
        with pytest.raises(ValueError, match="neither"):
            ablation.variant(wrong)
    load, override = (getattr(sys.modules["race.systems"], name) for name in ("load_yaml", "override"))
    from duihua.config import build
    from duihua.stages.configs.pretrain import PretrainConfig

    for name, sets in ablation.VARIANTS.items():  # each fits together
        settings = override(load(BENCHMARKS / "race" / "duihua.yaml"), sets)
        assert build(PretrainConfig, settings["pretrain"], name)
