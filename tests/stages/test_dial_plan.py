"""A dialled training says what it will cost, keeps that, does what it said, and says whether it held."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from duihua.config import build
from duihua.data.source import SourceConfig
from duihua.errors import ConfigError
from duihua.files import read_json, sha256_file, write_json
from duihua.models.config import DecoderConfig
from duihua.stages import STAGES, dial_plan
from duihua.stages.configs.pretrain import PretrainConfig
from duihua.stages.context import StageContext, StageResult
from duihua.stages.dial_plan import PLAN_FILE, Plan, World, compiled_as_measured, read_plan, why_silent
from duihua.stages.execution import execute
from duihua.stages.prediction import outcome
from duihua.stages.pretrain import language_model_loss
from duihua.text.tokenizer import Tokenizer
from duihua.training.config import TrainerConfig
from duihua.training.scaling_law import stored_law
from duihua.training.trainer import Trainer

ASKED = PretrainConfig(
    sources=(SourceConfig(name="tiny-text"),),
    size=1,
    tokens="16k",
    length=32,
    trainer=TrainerConfig(checkpoint_seconds=1e9, log_every=2),
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    Tokenizer.train(["the cat and the dog sing and run"] * 3, 264).save(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(dial_plan, "MOST_SECONDS", 0.05)
        patched.setattr(dial_plan, "LEAST_SECONDS", 0.05)
        patched.setattr(dial_plan, "SCORED_BYTES", 500)
        yield


@pytest.fixture(scope="module")
def dialled(tokenizer: Path, quick: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """(folder, metrics, what was printed) of a training by the dial."""
    folder, said = tmp_path_factory.mktemp("dialled") / "a", io.StringIO()
    with contextlib.redirect_stdout(said):
        metrics = run(ASKED, folder, tokenizer).metrics
    return folder, metrics, said.getvalue()


def run(config: PretrainConfig, folder: Path, tokenizer: Path) -> StageResult:
    context = StageContext(folder, {"tokenizer": tokenizer}, folder.parent / "data", "cpu", 1, 1)
    return execute(STAGES["pretrain"], config, context)


def test_it_trains_what_it_said_and_writes_prediction_and_settings(dialled: tuple[Path, dict[str, Any], str]) -> None:
    folder, metrics, said = dialled
    plan = read_plan(folder / PLAN_FILE)
    assert plan is not None and plan.size == 1 and plan.config.steps == 8 == metrics["steps"]
    assert metrics["settings"]["dial"] == {"size": 1, **plan.derived}
    assert plan.derived["shape.width"] == metrics["settings"]["width"] == 64
    assert said.index("the dial stands at size 1") < said.index("what this will cost") < said.index("8 steps of 2,048")
    assert said.index("8 steps of 2,048") < said.index("predicted and achieved")
    assert "not predicted: the law was fitted on race-text" in said
    assert all(name in said for name in plan.derived)
    found = metrics["prediction"]
    assert set(found) == {"minutes", "memory_gib", "held"}  # the law does not know this text
    assert found["minutes"]["predicted"] == pytest.approx(plan.seconds / 60)
    assert found["minutes"]["achieved"] >= metrics["training_seconds"] / 60
    assert 0.05 < found["memory_gib"]["achieved"] < 8


def test_the_settings_that_it_stands_for_train_the_same_model_without_it(
    dialled: tuple[Path, dict[str, Any], str], tmp_path: Path, tokenizer: Path
) -> None:
    folder, _, _ = dialled
    plan = read_plan(folder / PLAN_FILE)
    assert plan is not None
    plain = run(plan.config, tmp_path / "b", tokenizer)
    assert "prediction" not in plain.metrics and "dial" not in plain.metrics["settings"]
    weights = [sha256_file(place / "model.safetensors") for place in (folder, tmp_path / "b")]
    assert weights[0] == weights[1]
    other = dataclasses.replace(plan.config, steps=plan.config.steps - 1)
    assert run(other, tmp_path / "c", tokenizer) and sha256_file(tmp_path / "c" / "model.safetensors") != weights[0]


def test_a_stopped_training_goes_on_with_the_settings_that_it_began_with(
    dialled: tuple[Path, dict[str, Any], str], tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, metrics, _ = dialled
    right, first = Trainer.step, World.measure

    def stop(self: Trainer) -> dict[str, float]:
        if self.label == "pretrain" and self.step_number == 5:
            self.save()
            raise RuntimeError("stopped")
        return right(self)

    measured: list[PretrainConfig] = []

    def measure(self: World, settings: PretrainConfig) -> Any:
        measured.append(settings)
        return first(self, settings)

    monkeypatch.setattr(World, "measure", measure)
    monkeypatch.setattr(Trainer, "step", stop)
    with pytest.raises(RuntimeError, match="stopped"):
        run(ASKED, tmp_path / "stopped", tokenizer)
    monkeypatch.setattr(Trainer, "step", right)
    assert len(measured) == 1
    saved_more = dataclasses.replace(ASKED, trainer=dataclasses.replace(ASKED.trainer, checkpoint_steps=2))
    again = run(saved_more, tmp_path / "stopped", tokenizer)
    assert len(measured) == 1  # not measured anew
    assert (tmp_path / "stopped" / "checkpoints" / "step-00000006").is_dir()  # saved as it was asked for now
    sums = [sha256_file(place / "model.safetensors") for place in (folder, tmp_path / "stopped")]
    assert sums[0] == sums[1] and again.metrics["loss"] == metrics["loss"]
    assert again.metrics["prediction"]["minutes"]["achieved"] > 0


def test_a_plan_comes_back_as_it_was_and_a_broken_one_is_named(
    dialled: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    path = tmp_path / PLAN_FILE
    path.write_bytes((dialled[0] / PLAN_FILE).read_bytes())
    plan = read_plan(path)
    assert plan is not None
    again = Plan.from_mapping(json.loads(json.dumps(plan.to_mapping())))
    assert again == plan and build(PretrainConfig, read_json(path)["config"]) == plan.config
    write_json(path, {"size": 1})
    with pytest.raises(ConfigError, match="is no plan of the dial"):
        read_plan(path)
    assert read_plan(tmp_path / "none.json") is None


def test_a_prediction_holds_within_a_fifth_and_bits_within_their_range(
    dialled: tuple[Path, dict[str, Any], str],
) -> None:
    read = read_plan(dialled[0] / PLAN_FILE)
    assert read is not None
    plan = dataclasses.replace(read, bits={"bits": 1.9, "low": 1.8, "high": 2.0})
    seconds, memory = plan.seconds, plan.measured.memory_bytes
    found = outcome(plan, 1.19 * seconds, round(0.81 * memory), 1.99)
    assert found["held"] and all(found[name]["held"] for name in ("minutes", "memory_gib", "bits_per_byte"))
    assert found["minutes"]["ratio"] == pytest.approx(1.19)
    for wrong in (
        outcome(plan, 1.21 * seconds, memory, 1.9),
        outcome(plan, 0.79 * seconds, memory, 1.9),
        outcome(plan, seconds, round(1.3 * memory), 1.9),
        outcome(plan, seconds, memory, 2.01),
        outcome(plan, seconds, memory, 1.79),
    ):
        assert not wrong["held"]
    assert "bits_per_byte" not in outcome(plan, seconds, memory, None)  # a text that the tokenizer alters has none


def test_the_law_speaks_only_of_what_it_was_fitted_to() -> None:
    law = stored_law()
    good = PretrainConfig(sources=(SourceConfig(name="race-text"),), start="bigrams")
    shape = DecoderConfig(vocabulary_size=8192)
    assert why_silent(law, good, shape) == ""
    for config, other in (
        (dataclasses.replace(good, sources=(SourceConfig(name="tiny-text"),)), shape),
        (dataclasses.replace(good, sources=(SourceConfig(name="race-text", weight=2.0),)), shape),
        (good, dataclasses.replace(shape, vocabulary_size=4096)),
        (dataclasses.replace(good, length=128), shape),
        (dataclasses.replace(good, mask_documents=True), shape),
        (dataclasses.replace(good, start="random"), shape),
        (dataclasses.replace(good, shape=dataclasses.replace(good.shape, preset="llama")), shape),
    ):
        assert why_silent(law, config, other).startswith("the law was fitted")


@pytest.mark.parametrize("masked", [False, True])
def test_what_is_measured_is_what_will_run(
    masked: bool, tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, right = set(), Trainer.step

    def step(self: Trainer) -> dict[str, float]:
        batches: Any = self.batches
        seen.add((self.label, self.loss, batches.mask_documents))
        return right(self)

    monkeypatch.setattr(Trainer, "step", step)
    run(dataclasses.replace(ASKED, mask_documents=masked), tmp_path / "run", tokenizer)
    assert seen == {(label, language_model_loss, masked) for label in ("measurement", "pretrain")}


@pytest.mark.parametrize(
    ("steps", "triton", "expected"), [(999, True, "blocks"), (1000, True, "auto"), (999, False, "auto")]
)
def test_a_short_training_on_a_gpu_is_compiled_as_its_measurement_was(
    steps: int, triton: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("duihua.training.compilation.importlib.util.find_spec", lambda _: object() if triton else None)
    config = dataclasses.replace(ASKED, size=None, tokens=None, steps=steps)
    assert compiled_as_measured(config, "cuda").trainer.compile == expected
    assert compiled_as_measured(config, "cpu") == config
    off = dataclasses.replace(config, trainer=TrainerConfig(compile="off"))
    assert compiled_as_measured(off, "cuda") == off


def test_evaluations_during_training_are_asked_of_the_training_and_not_of_the_measurement(
    tmp_path: Path, tokenizer: Path, dialled: tuple[Path, dict[str, Any], str]
) -> None:
    looked = dataclasses.replace(ASKED.trainer, evaluate_every=4, keep_best="heldout_loss", end_with="best")
    run(dataclasses.replace(ASKED, trainer=looked), tmp_path / "run", tokenizer)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["step"] for row in rows if "heldout_loss" in row] == [4, 8]
    plan, blind = read_plan(tmp_path / "run" / PLAN_FILE), read_plan(dialled[0] / PLAN_FILE)
    assert plan is not None and blind is not None
    assert blind.measured.looking_seconds == 0.0 < plan.measured.looking_seconds
    assert plan.training_seconds == pytest.approx(8 * (plan.measured.step_seconds + plan.measured.looking_seconds))


def test_a_step_is_cut_until_it_fits_and_refused_where_none_does(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = object.__new__(World)
    world.config, world.context = ASKED, StageContext(tmp_path)
    shape = DecoderConfig(vocabulary_size=264, width=64, layers=2, heads=1, key_value_heads=1, context=64)
    found = []
    for room in (None, 10**9, 16 * 10**6, 9 * 10**6):
        monkeypatch.setattr(dial_plan, "free_memory", lambda device, room=room: room)
        found.append(world.pieces(shape, 32))
    assert found[:2] == [1, 1] and 1 < found[2] < found[3] <= 32
    monkeypatch.setattr(dial_plan, "free_memory", lambda device: 10**5)
    with pytest.raises(ConfigError, match=r"a step of 2 layers, 64 wide, needs .* GiB"):
        world.pieces(shape, 32)
