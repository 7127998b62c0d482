"""What was predicted and what came, on the page in both languages; and what a recipe says of its own cost."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from duihua.errors import ConfigError
from duihua.report.page import write_report
from duihua.report.recipe import load_recipe
from duihua.report.recipe_cost import RecipeCost, compared, cost_line, foretold, rest_line

build_fake_run = runpy.run_path(str(Path(__file__).with_name("fake_run.py")))["build_fake_run"]
QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"
COST = RecipeCost("a slow box", 2.0, {"tokenizer": 10.0, "pretrain": 100.0, "sft": 40.0})


def put(path: Path, keys: list[str], value: object) -> None:
    found = json.loads(path.read_text(encoding="utf-8"))
    inner = found
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    path.write_text(json.dumps(found), encoding="utf-8")


def test_the_report_shows_predicted_against_achieved(tmp_path: Path) -> None:
    run = build_fake_run(tmp_path / "run")
    put(run / "pretrain" / "result.json", ["metrics", "prediction"], None)  # nothing was predicted
    assert 'id="prediction"' not in write_report(run).read_text(encoding="utf-8")
    prediction = {
        "minutes": {"predicted": 10.0, "achieved": 11.5, "ratio": 1.15, "held": True},
        "memory_gib": {"predicted": 1.0, "achieved": 1.5, "ratio": 1.5, "held": False},
        "bits_per_byte": {"predicted": 1.9, "achieved": 1.88, "ratio": 0.99, "low": 1.8, "high": 2.0, "held": True},
        "held": False,
    }
    put(run / "pretrain" / "result.json", ["metrics", "prediction"], prediction)
    put(run / "run.json", ["prediction"], compared(COST, 2.5, 2.1))
    page = write_report(run).read_text(encoding="utf-8")
    section = page[page.index('<section id="prediction"') :]
    section = section[: section.index("</section>")]
    for text in ("Predicted and achieved", "预测与实际", "+15 %", "+50 %", "[1.80, 2.00]", "11.50", "held", "偏离"):
        assert text in section
    assert section.count("<table>") == 2 and section.count("missed") == 1
    assert "Whole recipe" in section and "整个配方" in section


def test_a_recipe_says_what_it_took_and_how_much_is_left() -> None:
    names = ["tokenizer", "pretrain", "sft"]
    assert cost_line(COST, names).startswith("These stages took 2m30s and 2.00 GiB of memory on a slow box")
    assert "took 1m50s" in cost_line(COST, names[:2])
    half = rest_line(COST, {"tokenizer": 5.0, "pretrain": 50.0}, names)  # twice as quick here
    assert half is not None and half.startswith("about 20s left for sft (0.50 times")
    assert rest_line(COST, {"tokenizer": 5.0, "pretrain": 50.0, "sft": 1.0}, names) is None
    assert rest_line(COST, {"tokenizer": 5.0}, [*names, "mine"]) is None  # of which nothing is known
    assert rest_line(COST, {"mine": 5.0}, ["mine", "sft"]) is None
    found = compared(COST, 2.5 * 1.1, 2.0 * 1.3)
    assert found["minutes"]["held"] and not found["memory_gib"]["held"]
    assert found["minutes"]["ratio"] == pytest.approx(1.1)


def test_the_whole_is_foretold_at_the_pace_of_the_first_stages_here_and_held_to_that() -> None:
    names = ["tokenizer", "pretrain", "sft"]
    assert foretold(COST, {"tokenizer": 5.0}, names) is None  # too little to tell a pace by
    assert foretold(COST, {"tokenizer": 5.0, "pretrain": 50.0, "sft": 20.0}, names) is None  # nothing left to foretell
    assert foretold(COST, {"tokenizer": 5.0, "pretrain": 50.0}, [*names, "mine"]) is None  # of which nothing is known
    assert foretold(RecipeCost("here", 1.0), {"tokenizer": 5.0}, names) is None
    told = foretold(COST, {"tokenizer": 5.0, "pretrain": 50.0}, names)
    assert told == {"after": "pretrain", "minutes": pytest.approx(1.25), "pace": pytest.approx(0.5)}
    assert set(compared(RecipeCost("here", 1.0), 1.3, 2.0)) == {"machine", "memory_gib"}  # no time was stated
    found = compared(COST, 1.3, 2.0, told)
    assert found["minutes_here"]["held"] and found["minutes_here"]["predicted"] == pytest.approx(1.25)
    assert found["minutes"]["held"] is None  # said of another machine
    assert found["minutes"]["ratio"] == pytest.approx(0.52)
    assert not compared(COST, 1.6, 2.0, told)["minutes_here"]["held"]
    same = compared(COST, 3.5, 2.0, {**told, "pace": 1.1, "minutes": 2.75})
    assert same["minutes"]["held"] is False and same["minutes_here"]["held"] is False


def test_the_report_says_whose_figure_it_is(tmp_path: Path) -> None:
    run = build_fake_run(tmp_path / "run")
    told = foretold(COST, {"tokenizer": 5.0, "pretrain": 50.0}, ["tokenizer", "pretrain", "sft"])
    put(run / "run.json", ["prediction"], compared(COST, 1.3, 2.0, told))
    page = write_report(run).read_text(encoding="utf-8")
    for text in ("by the first stages here", "按本机前几个阶段推算", "another pace", "快慢不同", "−48 %"):
        assert text in page


def test_the_quickstart_states_its_cost_only_as_it_stands() -> None:
    recipe = load_recipe(QUICKSTART)
    assert recipe.cost is not None
    with_bf16, without = recipe.cost.on(True), recipe.cost.on(False)
    assert with_bf16 == recipe.cost and without == recipe.cost.without_bf16
    assert set(with_bf16.seconds) == set(without.seconds) == {stage.name for stage in recipe.stages}
    assert with_bf16.minutes < without.minutes
    assert COST.on(True) is COST.on(False) is COST  # where one machine alone is stated
    assert load_recipe(QUICKSTART, ["seed=2"]).cost == recipe.cost
    assert load_recipe(QUICKSTART, ["pretrain.steps=10"]).cost is None
    with pytest.raises(ConfigError, match="must be above 0, found -1"):
        RecipeCost("here", 1.0, {"sft": -1.0})
