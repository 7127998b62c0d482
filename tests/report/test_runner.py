"""The runner with stages that train nothing: each makes a file out of its config, inputs, seed and chance."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from duihua.config import to_mapping
from duihua.errors import ConfigError, DuihuaError
from duihua.files import read_json, write_atomic, write_json
from duihua.report.fingerprint import bundle_fingerprint, what_changed
from duihua.report.recipe import PlannedStage, Recipe
from duihua.report.recipe_cost import RecipeCost
from duihua.report.runner import RunOutcome, run_recipe, terminating_as_interrupt
from duihua.report.settings_line import settings_line
from duihua.stages import Stage
from duihua.stages.configs.pretrain import PretrainConfig
from duihua.stages.context import StageContext, StageResult
from duihua.stages.data_state import sources_in
from duihua.training.config import deciding, saved_like


@dataclass(frozen=True)
class FakeConfig:
    steps: int = 3
    """Steps."""
    word: str = "a"
    """A word that goes into the bundle."""


class FakeStage(Stage):
    """Draws a number in each step and saves after each, like the Trainer: what is drawn so far and the random state."""

    resumes_well = True

    def config_class(self) -> type[Any]:
        return FakeConfig

    def run(self, config: FakeConfig, context: StageContext) -> StageResult:
        checkpoint = context.directory / "checkpoint.json"
        drawn: list[float] = []
        if checkpoint.exists():
            state = read_json(checkpoint)
            drawn = state["drawn"]
            if self.resumes_well:
                version, inner, gauss = state["random"]
                random.setstate((version, tuple(inner), gauss))
        while len(drawn) < config.steps:
            drawn.append(random.random())
            write_json(checkpoint, {"drawn": drawn, "random": random.getstate()})
        inputs = {role: (path / "model.bin").read_text() for role, path in context.inputs.items()}
        write_atomic(context.directory / "model.bin", json.dumps([config.word, drawn, inputs]).encode())
        result = StageResult(context.directory, {"steps": config.steps})
        result.save(context.directory)
        return result


class CarelessStage(FakeStage):
    """The negative control: forgets the random state, so that a resumed run draws other numbers."""

    resumes_well = False


class StoppingStage(FakeStage):
    """Is stopped after its first step, as by Ctrl-C."""

    def run(self, config: FakeConfig, context: StageContext) -> StageResult:
        write_json(context.directory / "checkpoint.json", {"drawn": [0.5], "random": random.getstate()})
        raise KeyboardInterrupt


def planned(name: str, config: FakeConfig, kind: type[FakeStage] = FakeStage, **inputs: str | Path) -> PlannedStage:
    return PlannedStage(name, kind(name, "fake", "", "", {}), config, inputs)


def recipe(*stages: PlannedStage, seed: int = 1) -> Recipe:
    return Recipe("fake", {"en": "Fake"}, seed, 1, stages)


def three(kind: type[FakeStage] = FakeStage, word: str = "b", seed: int = 1) -> Recipe:
    return recipe(
        planned("one", FakeConfig(), kind),
        planned("two", FakeConfig(word=word), kind, policy="one"),
        planned("three", FakeConfig(), kind, policy="two"),
        seed=seed,
    )


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page of a run has its own tests; here a line stands in."""
    monkeypatch.setattr(
        "duihua.report.page.write_report", lambda folder: (folder / "report.html", (folder / "report.html").touch())[0]
    )


def go(recipe: Recipe, folder: Path, **more: Any) -> RunOutcome:
    return run_recipe(recipe, folder, folder.parent / "data", command=["duihua", "run", "fake.yaml"], **more)


def models(folder: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in sorted(folder.glob("*/model.bin"))}


def test_stages_run_in_order_and_get_the_earlier_bundles(tmp_path: Path) -> None:
    outcome = go(three(), tmp_path / "run")
    assert outcome.stages == {"one": "finished", "two": "finished", "three": "finished"}
    assert outcome.complete
    word, drawn, inputs = json.loads(models(tmp_path / "run")["two"])
    assert (word, len(drawn)) == ("b", 3)
    assert inputs == {"policy": models(tmp_path / "run")["one"].decode()}
    run = read_json(tmp_path / "run" / "run.json")
    assert [stage["status"] for stage in run["stages"]] == ["finished"] * 3
    assert run["stages"][1]["config"] == {"steps": 3, "word": "b"}
    assert run["command"] == ["duihua", "run", "fake.yaml"]
    assert run["versions"]["torch"]
    assert run["machine"]["cores"] >= 1
    assert run["minutes"] >= sum(stage["seconds"] for stage in run["stages"]) / 60 > 0
    assert run["peak_memory_gib"] > 0
    assert read_json(tmp_path / "run" / "summary.json")["minutes"] == run["minutes"]


def test_the_same_again_runs_nothing_and_touches_no_bundle(tmp_path: Path) -> None:
    go(three(), tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("model.bin")}
    record = (tmp_path / "run" / "run.json").read_bytes()
    outcome = go(three(), tmp_path / "run")
    assert set(outcome.stages.values()) == {"skipped"}
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("model.bin")} == before
    assert (tmp_path / "run" / "run.json").read_bytes() == record


def test_a_changed_config_reruns_its_stage_and_all_that_build_on_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    go(three(), tmp_path / "run")
    old = models(tmp_path / "run")
    outcome = go(three(word="c"), tmp_path / "run")
    assert outcome.stages == {"one": "skipped", "two": "finished", "three": "finished"}
    kept = tmp_path / "run" / "old"
    assert (kept / "two-1" / "model.bin").read_bytes() == old["two"]
    assert (kept / "three-1" / "model.bin").read_bytes() == old["three"]
    said = capsys.readouterr().out
    assert "two: stale (config.word: b -> c)" in said
    assert "three: stale (inputs.policy: changed)" in said
    assert models(tmp_path / "run")["one"] == old["one"]
    moved = read_json(tmp_path / "run" / "run.json")["moved_aside"]
    assert [entry["directory"] for entry in moved] == ["old/two-1", "old/three-1"]
    go(three(word="b"), tmp_path / "run")
    assert models(tmp_path / "run") == old  # and the second stale ones got names of their own
    assert sorted(path.name for path in kept.iterdir()) == ["three-1", "three-2", "two-1", "two-2"]


def test_another_seed_reruns_everything_and_gives_other_bundles(tmp_path: Path) -> None:
    go(three(), tmp_path / "run")
    old = models(tmp_path / "run")
    assert set(go(three(seed=2), tmp_path / "run").stages.values()) == {"finished"}
    assert all(models(tmp_path / "run")[name] != old[name] for name in old)


def test_a_bundle_from_outside_counts_by_its_content(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "model.bin").write_text("first")
    plan = recipe(planned("one", FakeConfig(), policy=outside))
    go(plan, tmp_path / "run")
    assert go(plan, tmp_path / "run").stages == {"one": "skipped"}
    (outside / "model.bin").write_text("second")
    assert go(plan, tmp_path / "run").stages == {"one": "finished"}


def test_until_stops_after_that_stage_and_the_next_call_goes_on(tmp_path: Path) -> None:
    outcome = go(three(), tmp_path / "run", until="two")
    assert list(outcome.stages) == ["one", "two"]
    assert not outcome.complete
    assert not (tmp_path / "run" / "summary.json").exists()
    assert go(three(), tmp_path / "run").stages == {"one": "skipped", "two": "skipped", "three": "finished"}
    with pytest.raises(ConfigError, match=r"no stage 'thre'.*'three'"):
        go(three(), tmp_path / "run", until="thre")


def test_what_the_first_stages_took_here_foretells_the_whole_also_over_two_attempts(tmp_path: Path) -> None:
    stated = RecipeCost("elsewhere", 1.0, {"one": 3600.0, "two": 3600.0, "three": 7200.0})
    costly = dataclasses.replace(three(), cost=stated)
    go(costly, tmp_path / "run", until="one")
    record = read_json(tmp_path / "run" / "run.json")
    told = record["foretold"]
    assert told["after"] == "one" and 0 < told["pace"] < 0.01
    assert told["minutes"] == pytest.approx(4 * record["stages"][0]["seconds"] / 60)
    go(costly, tmp_path / "run")
    record = read_json(tmp_path / "run" / "run.json")
    assert record["foretold"] == told  # not what was known later
    assert record["prediction"]["minutes_here"]["predicted"] == told["minutes"]
    assert record["prediction"]["minutes"]["held"] is None
    go(three(), tmp_path / "plain")
    assert "foretold" not in read_json(tmp_path / "plain" / "run.json")


@pytest.mark.parametrize(("native", "machine"), [(True, "a new one"), (False, "an old one")])
def test_what_is_stated_is_that_of_a_processor_of_this_kind(
    native: bool,
    machine: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("duihua.nn.products.bf16_is_native", lambda: native)
    names = ("one", "two", "three")
    old = RecipeCost("an old one", 2.0, dict.fromkeys(names, 60.0))
    costly = dataclasses.replace(three(), cost=RecipeCost("a new one", 1.0, dict.fromkeys(names, 30.0), old))
    go(costly, tmp_path / "run")
    assert f"GiB of memory on {machine};" in capsys.readouterr().out
    assert read_json(tmp_path / "run" / "run.json")["prediction"]["machine"] == machine


def test_ctrl_c_says_how_to_go_on_and_the_same_command_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stopping = recipe(planned("one", FakeConfig()), planned("two", FakeConfig(), StoppingStage))
    with pytest.raises(KeyboardInterrupt):
        go(stopping, tmp_path / "run")
    assert "Go on with the same command: duihua run fake.yaml" in capsys.readouterr().out
    run = read_json(tmp_path / "run" / "run.json")
    assert [stage["status"] for stage in run["stages"]] == ["finished", "unfinished"]
    healthy = recipe(planned("one", FakeConfig()), planned("two", FakeConfig()))
    assert go(healthy, tmp_path / "run").stages == {"one": "skipped", "two": "finished"}
    assert "two: going on" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "two" / "model.bin").read_bytes())[1][0] == 0.5  # from the checkpoint


def test_sigterm_is_ctrl_c_inside_a_run_and_what_it_was_outside() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), terminating_as_interrupt():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def test_minutes_and_memory_go_on_counting_after_an_interruption(tmp_path: Path) -> None:
    go(recipe(planned("one", FakeConfig())), tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    run = read_json(path)
    run["stages"][0]["seconds"], run["other_seconds"], run["peak_memory_gib"] = 600.0, 60.0, 77.0
    write_json(path, run)
    (tmp_path / "run" / "one" / "result.json").unlink()
    go(recipe(planned("one", FakeConfig())), tmp_path / "run")
    run = read_json(path)
    assert 11.0 < run["minutes"] < 12.0
    assert run["peak_memory_gib"] == 77.0
    assert len(run["attempts"]) == 2
    go(recipe(planned("one", FakeConfig(word="new"))), tmp_path / "run")  # a stale stage's minutes are not this one's
    assert read_json(path)["minutes"] < 2.0


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_finished_stage_whose_bundle_was_damaged_runs_again(tmp_path: Path, damage: str) -> None:
    go(three(), tmp_path / "run")
    old = models(tmp_path / "run")
    model = tmp_path / "run" / "one" / "model.bin"
    if damage == "missing":
        model.unlink()
    else:
        model.write_bytes(model.read_bytes()[:-1])
    assert go(three(), tmp_path / "run").stages == {"one": "finished", "two": "skipped", "three": "skipped"}
    assert models(tmp_path / "run") == old


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match=r"thesis\.txt"):
        go(three(), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is a file"):
        go(three(), tmp_path / "file")


def test_an_unknown_device_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown device"):
        go(three(), tmp_path / "run", device="gpu")
    assert not (tmp_path / "run").exists()


def in_child(action: Callable[[], object]) -> int:
    """Run `action` in a forked child; its exit code, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            action()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def killed_at(moment: int, recipe: Recipe, folder: Path) -> Callable[[], object]:
    """The run with kill -9 just before its `moment`-th rename: every state on disk ends with one."""

    def action() -> None:
        seen, real = 0, os.replace

        def replace(source: Any, target: Any) -> None:
            nonlocal seen
            seen += 1
            if seen == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            real(source, target)

        os.replace = replace  # type: ignore[assignment]
        go(recipe, folder)

    return action


def kill_everywhere(kind: type[FakeStage], tmp_path: Path) -> Iterator[bool]:
    """For each moment: whether the killed and repeated run ends with the bundles of an undisturbed one."""
    plan = recipe(planned("one", FakeConfig(2), kind), planned("two", FakeConfig(2), kind, policy="one"))
    go(plan, tmp_path / "calm")
    wanted = models(tmp_path / "calm")
    for moment in range(1, 200):
        folder = tmp_path / f"killed-{moment}"
        if in_child(killed_at(moment, plan, folder)) == 0:
            return
        assert go(plan, folder).complete
        assert not (folder / "old").exists()
        yield models(folder) == wanted
    raise AssertionError("the run never ended")


def test_kill_9_at_any_write_and_the_same_command_gives_the_same_bytes(tmp_path: Path) -> None:
    same = list(kill_everywhere(FakeStage, tmp_path))
    assert len(same) > 20
    assert all(same)


def test_the_kill_test_notices_a_stage_that_forgets_its_random_state(tmp_path: Path) -> None:
    assert not all(kill_everywhere(CarelessStage, tmp_path))


def test_two_runs_in_one_folder_are_refused_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    class SleepingStage(FakeStage):
        def run(self, config: FakeConfig, context: StageContext) -> StageResult:
            (tmp_path / "inside").touch()
            time.sleep(60)
            raise AssertionError("was not killed")

    child = os.fork()
    if child == 0:
        try:
            go(recipe(planned("one", FakeConfig(), SleepingStage)), folder)
        finally:
            os._exit(1)
    try:
        while not (tmp_path / "inside").exists():
            time.sleep(0.01)
        with pytest.raises(DuihuaError, match=rf"another run is using this folder \(process {child}\)"):
            go(recipe(planned("one", FakeConfig())), folder)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert go(recipe(planned("one", FakeConfig())), folder).stages == {"one": "finished"}


def test_settings_are_printed_flat() -> None:
    source = {"name": "wiki", "path": "", "hub": "", "limit": 5, "weight": 1.0}
    config = {"steps": 3, "rates": {"fast": 0.1}, "pair": [1, 2], "sources": [source], "prompts": [{"a": 1}, {"a": 2}]}
    assert settings_line(config) == "steps 3, rates.fast 0.1, pair 1, 2, sources wiki (limit 5), prompts 2 entries"
    assert settings_line({"steps": 3, "shape": {"width": None, "layers": 2}, "lora": None}) == "steps 3, shape.layers 2"


def test_settings_that_are_the_defaults_are_not_printed() -> None:
    config = {"steps": 3, "shape": {"width": 64, "layers": 2}, "rate": 0.1}
    assert settings_line(config, {"steps": 3, "shape": {"width": 32, "layers": 2}, "rate": 0.1}) == "shape.width 64"
    assert settings_line(config, config) == "defaults"


def test_when_a_training_is_saved_decides_nothing_of_what_it_becomes() -> None:
    config = PretrainConfig()
    trainer = config.trainer
    for changed in ({"checkpoint_seconds": 7.0}, {"checkpoint_steps": 3, "keep_checkpoints": 5}):
        other = dataclasses.replace(config, trainer=dataclasses.replace(trainer, **changed))  # type: ignore[arg-type]
        assert deciding(other) == deciding(config)
        assert to_mapping(other) != to_mapping(config)
        back = dataclasses.replace(other, trainer=saved_like(other.trainer, trainer))
        assert back == config
    other = dataclasses.replace(config, trainer=dataclasses.replace(trainer, clip_norm=2.0))
    assert deciding(other) != deciding(config)
    assert deciding(FakeConfig(steps=4)) == {"steps": 4, "word": "a"}


def test_sources_are_found_at_any_depth_of_the_real_configs() -> None:
    from duihua.data.source import SourceConfig
    from duihua.stages import STAGES

    for stage in STAGES.values():
        config = stage.config_class()()
        if stage.name == "recurrent":  # by itself it reads a corpus of words, which is no source
            assert not list(sources_in(config))
            config = dataclasses.replace(config, corpus="", sources=(SourceConfig(name="wiki"),))
        found = list(sources_in(config))
        assert found
        assert all(isinstance(source, SourceConfig) for source in found)


def test_what_changed_names_each_difference() -> None:
    before = {"config": {"a": 1, "b": [1]}, "data": {"x": "h1", "y": "h2"}, "seed": 1}
    after = {"config": {"a": 2, "b": [1]}, "data": {"x": "h3", "z": "h4"}, "seed": 1}
    assert what_changed(before, after) == ["config.a: 1 -> 2", "data.x: changed", "data.y: removed", "data.z: added"]
    assert what_changed(before, before) == []


def test_what_changed_names_first_what_was_changed_and_not_what_a_version_added() -> None:
    before = {"config": {"old": 3, "steps": 1}}
    after = {"config": {"added": [], "beside": 2, "steps": 4}}
    assert what_changed(before, after) == ["config.steps: 1 -> 4", "config.beside: None -> 2", "config.old: 3 -> None"]
    assert what_changed({"config": {}}, {"config": {"added": []}}) == ["config.added: None -> []"]


def test_a_bundle_fingerprint_follows_content_and_not_time(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = bundle_fingerprint(tmp_path)
    os.utime(tmp_path / "a", (0, 0))
    (tmp_path / ".lock").write_text("2")
    assert bundle_fingerprint(tmp_path) == first
    (tmp_path / "a").write_text("2")
    assert bundle_fingerprint(tmp_path) != first
