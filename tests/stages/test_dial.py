"""The dial's arithmetic: the quickstart comes out at its place, more asks for more, what is stated stays, contradictions are
named."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest

from duihua.cli.stage import read_config
from duihua.config import build, load_yaml
from duihua.errors import ConfigError
from duihua.models.work import multiplying_weights, training_flops
from duihua.report.recipe import load_recipe
from duihua.stages import STAGES
from duihua.stages.configs.dial import MOST_SIZE
from duihua.stages.configs.pretrain import PretrainConfig, ShapeConfig
from duihua.stages.dial import batch_tokens, decoder_of, dialled_shape, resolve, tokens_of, warmup_steps
from duihua.stages.dial_choice import Measured, choose
from duihua.training.config import OptimizerConfig
from duihua.training.scaling_law import Curve, Law

QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"
LAW = Law(Curve(0.6, 0.35, 0.3, 1.0, 0.3), (), 0.01, {})


class Machine:
    """A machine of so many operations a second that scores in `scoring` seconds; `timed` are the settings that it was asked
    about. looking: seconds of each step that evaluations take."""

    def __init__(self, operations: float, scoring: float = 5.0, looking: float = 0.0) -> None:
        self.operations, self.scoring, self.looking = operations, scoring, looking
        self.timed: list[PretrainConfig] = []

    def __call__(self, config: PretrainConfig) -> Measured:
        self.timed.append(config)
        step = config.rows * config.micro_batches * config.length
        seconds = training_flops(config.shape.decoder(8192, config.length), step) / self.operations
        return Measured(seconds, step, 5, self.scoring, 10**9, looking_seconds=self.looking)


def test_size_four_on_the_quickstarts_tokens_is_the_quickstart() -> None:
    entry = next(entry["pretrain"] for entry in load_yaml(QUICKSTART)["stages"] if "pretrain" in entry)
    recipe = build(PretrainConfig, entry)
    tokens = recipe.steps * 8 * 256
    found = resolve(PretrainConfig(size=4, tokens=tokens), 4, tokens)
    # Which is not the dial's to choose:
    assert recipe.trainer == dataclasses.replace(found.trainer, precision="fastest", evaluate_every=135)
    assert found == dataclasses.replace(recipe, expected_bits_per_byte=None, trainer=found.trainer)
    drawn = resolve(PretrainConfig(size=4, tokens=tokens, keep=("start",)), 4, tokens)
    assert drawn.start == "random" and found.start == "bigrams"
    tied = resolve(PretrainConfig(size=4, tokens=tokens, shape=ShapeConfig(preset="gpt2")), 4, tokens)
    assert tied.start == "random", "tied embeddings cannot be counted"
    assert drawn.optimizer.embedding_learning_rate == 2 * found.optimizer.embedding_learning_rate
    assert not found.dialled and tokens_of(found) == tokens
    assert resolve(PretrainConfig(size=5, tokens=tokens), 5, tokens).shape != recipe.shape


def test_shapes_by_hand() -> None:
    def shape(config: PretrainConfig, size: int) -> tuple[int, ...]:
        return tuple(dialled_shape(config, size).values())

    qwen = PretrainConfig(size=1, tokens=1)  # width, layers, heads, key-value heads, head width, feed-forward
    assert shape(qwen, 1) == (64, 1, 1, 1, 64, 192)
    assert shape(qwen, 5) == (256, 5, 4, 2, 64, 704)
    assert shape(qwen, 12) == (576, 12, 9, 3, 64, 1536)
    gpt = PretrainConfig(size=1, tokens=1, shape=ShapeConfig(preset="gpt2"))  # each head has keys of its own; no gate
    assert shape(gpt, 12) == (576, 12, 9, 9, 64, 2304)
    assert multiplying_weights(decoder_of(qwen, 1, 100)) == 4 * 64 * 64 + 3 * 64 * 192 + 64 * 100


def test_a_larger_size_is_larger_and_a_longer_horizon_longer() -> None:
    sizes = [decoder_of(PretrainConfig(size=1, tokens=1), size, 8192) for size in range(1, MOST_SIZE + 1)]
    weights = [multiplying_weights(shape) for shape in sizes]
    assert weights == sorted(set(weights)) and weights[-1] < 3e9
    found = [resolve(PretrainConfig(size=4, tokens=1), 4, tokens) for tokens in (1e4, 1e6, 1e7, 1e8, 1e9, 1e11)]
    for before, after in itertools.pairwise(found):
        assert after.steps > before.steps and after.rows >= before.rows
        assert after.schedule.warmup_steps >= before.schedule.warmup_steps
        assert after.optimizer.matrix_learning_rate >= before.optimizer.matrix_learning_rate
    assert [batch_tokens(horizon) for horizon in (1, 1.5e6, 1e7, 1e8)] == [2048, 2048, 4096, 8192]
    assert [warmup_steps(steps) for steps in (1, 40, 760, 3000)] == [1, 4, 10, 30]
    wide, narrow = (resolve(PretrainConfig(size=s, tokens=1), s, 1e6).optimizer for s in (16, 4))
    assert wide.head_learning_rate == pytest.approx(narrow.head_learning_rate / 2)  # 768 and 192 wide
    assert wide.matrix_learning_rate == narrow.matrix_learning_rate


def test_micro_batches_cut_the_step_and_do_not_change_it() -> None:
    whole, cut = (resolve(PretrainConfig(size=4, tokens=1), 4, 1e8, pieces) for pieces in (1, 4))
    assert (whole.rows, whole.micro_batches, cut.rows, cut.micro_batches) == (32, 1, 8, 4)
    assert tokens_of(whole) == tokens_of(cut) and whole.optimizer == cut.optimizer


def test_what_was_stated_stays_even_where_it_is_the_default(tmp_path: Path) -> None:
    stage, long = STAGES["pretrain"], 1e9
    said = read_config(stage, "", [], ["--size", "4", "--tokens", "1B", "--rows", "8"])
    assert said.keep == ("rows",) and resolve(said, 4, long).rows == 8
    assert resolve(read_config(stage, "", [], ["--size", "4", "--tokens", "1B"]), 4, long).rows > 8
    file = tmp_path / "a.yaml"
    file.write_text("optimizer: {matrix_learning_rate: 0.02}\nshape: {width: 128}\nschedule: {warmup_steps: 10}\n")
    said = read_config(stage, str(file), ["size=6"], ["--tokens=1B"])
    found = resolve(said, 6, long)
    assert said.kept() == ["shape.width", "optimizer.matrix_learning_rate", "schedule.warmup_steps"]
    assert (found.shape.width, found.shape.layers, found.shape.heads) == (128, 6, 2)
    assert found.optimizer.matrix_learning_rate == 0.02 and found.schedule.warmup_steps == 10
    assert found.optimizer.head_learning_rate != PretrainConfig().optimizer.head_learning_rate
    recipe = tmp_path / "r.yaml"
    recipe.write_text("stages:\n  - tokenizer: {}\n  - pretrain: {size: 4, minutes: 5, rows: 8}\n")
    assert load_recipe(recipe).stages[1].config.keep == ("rows",)
    assert load_recipe(QUICKSTART).stages[1].config.keep == ()  # no dial, nothing noted
    steps = choose(read_config(stage, "", [], ["--size", "4", "--steps", "600"]), LAW, 8192, Machine(1e11))
    assert steps.config.steps == 600


@pytest.mark.parametrize(
    ("asked", "where", "message"),
    [
        ({"minutes": 0.0}, "minutes", "must be a number above 0, found 0"),
        ({"minutes": float("inf")}, "minutes", "must be a number above 0"),
        ({"size": 99}, "size", "between 1 and 40 layers, or auto, found 99"),
        ({"size": 0}, "size", "between 1 and 40"),
        ({"size": 4, "tokens": 10, "minutes": 1.0}, "tokens", "minutes and tokens set the same thing"),
        ({"tokens": "1M", "budget": 1e15, "size": 4}, "budget", "tokens and budget set the same thing"),
        ({"size": 4, "tokens": "many"}, "tokens", "must be a number above 0, found many. Write it as 10M"),
        ({"size": 4, "tokens": 0.5}, "tokens", "at least one token"),
        ({"budget": "-1"}, "budget", "must be a number above 0"),
        ({"size": 4, "minutes": 5.0, "steps": 100}, "minutes", "minutes and steps set the same thing"),
        ({"size": 4, "minutes": 5.0, "keep": ("steps",)}, "minutes", "minutes and steps set the same thing"),
        ({"size": "auto", "tokens": "1M"}, "size", "prefers the largest size"),
        ({"keep": ("seed",)}, "keep", "the dial does not set 'seed'"),
    ],
)
def test_what_cannot_be_is_refused_by_name(asked: dict[str, Any], where: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PretrainConfig(**asked)
    assert caught.value.where == where and message in str(caught.value)


def test_a_contradiction_with_a_stated_default_is_named_with_its_stage(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pretrain\.minutes: minutes and steps set the same thing"):
        read_config(STAGES["pretrain"], "", [], ["--minutes", "5", "--steps", "600"])
    with pytest.raises(ConfigError, match="minutes and steps"):
        load_recipe(QUICKSTART, ["pretrain.minutes=5"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--size", "4"],
            "pretrain.size: says how large, not for how long. State minutes or budget beside it, or tokens, or",
        ),
        (["--size", "auto"], "pretrain.size: says how large, not for how long. State minutes or budget beside it."),
        (["--size", "auto", "--steps", "10"], "pretrain.size: says how large"),
        (["--tokens", "1M"], "pretrain.tokens: says for how long, not how large. State a size beside it"),
    ],
)
def test_half_of_a_dial_is_refused_when_all_was_read(words: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(STAGES["pretrain"], "", [], words)
    assert message in str(caught.value)
    file = tmp_path / "a.yaml"
    file.write_text("size: 4\n")
    assert read_config(STAGES["pretrain"], str(file), [], ["--tokens", "1M"]).dialled  # the other half is a flag


def test_minutes_hold_loading_training_and_scoring() -> None:
    machine = Machine(1e11, scoring=20.0)
    found = choose(PretrainConfig(size=4, minutes=10), LAW, 8192, machine, spent=lambda: 30.0)
    total = 30 + found.config.steps * found.measured.step_seconds + 20
    assert total == pytest.approx(600, abs=2 * found.measured.step_seconds)
    free = choose(PretrainConfig(size=4, minutes=10), LAW, 8192, Machine(1e11, scoring=0.0))
    assert free.config.steps > found.config.steps
    assert found.config.rows == machine.timed[-1].rows and found.config.shape == machine.timed[-1].shape
    for minutes, size in ((0.6, 4), (0.6, None), (0.84, 4)):  # nothing is left; nothing is left; too few updates are
        with pytest.raises(ConfigError, match=rf"{minutes} minutes are too short: .* scoring take about 1\.0"):
            choose(PretrainConfig(size=size, minutes=minutes), LAW, 8192, machine, spent=lambda: 30.0)


def test_minutes_hold_the_evaluations_during_training_too() -> None:
    machine = Machine(1e11, scoring=0.0, looking=0.5)
    found = choose(PretrainConfig(size=4, minutes=10), LAW, 8192, machine)
    step = found.measured.step_seconds + 0.5
    assert found.config.steps * step == pytest.approx(600, abs=2 * step)
    blind = choose(PretrainConfig(size=4, minutes=10), LAW, 8192, Machine(1e11, scoring=0.0))
    assert blind.config.steps * step > 600 + 2 * step  # without them counted it would take longer than was asked
    assert found.measured.tokens_per_second == blind.measured.tokens_per_second


def test_tokens_and_operations_are_met_to_a_step() -> None:
    found = choose(PretrainConfig(size=4, tokens="3M"), LAW, 8192, Machine(1e11))
    assert abs(tokens_of(found.config) - 3e6) <= found.measured.step_tokens
    shape = found.config.shape.decoder(8192, 256)
    found = choose(PretrainConfig(size=4, budget=5e13), LAW, 8192, Machine(1e11))
    assert abs(training_flops(shape, tokens_of(found.config)) - 5e13) <= training_flops(
        shape, found.measured.step_tokens
    )


def test_auto_takes_the_size_that_ends_lowest_and_times_what_it_takes() -> None:
    sizes = []
    for operations in (1e10, 1e14, 1e16):
        machine = Machine(operations, scoring=0.0)
        found = choose(PretrainConfig(minutes=10), LAW, 8192, machine)
        sizes.append(found.size)
        assert found.measured == machine(found.config)

        def bits(size: int, operations: float = operations) -> float:
            shape = decoder_of(PretrainConfig(size=size, tokens=1), size, 8192)
            return LAW.curve.bits(multiplying_weights(shape), 600 * operations / training_flops(shape, 1))

        assert bits(found.size) == min(bits(size) for size in range(2, MOST_SIZE + 1))  # one layer is never chosen
    assert sizes == sorted(set(sizes))
    budgets = [choose(PretrainConfig(budget=c), LAW, 8192, Machine(1e11)).size for c in (1e13, 1e16, 1e18)]
    assert budgets == sorted(set(budgets))


def test_another_optimizer_keeps_its_own_rate() -> None:
    asked = PretrainConfig(size=4, tokens=1, optimizer=OptimizerConfig(kind="adamw", learning_rate=1e-3))
    assert resolve(asked, 4, 1e8).optimizer.learning_rate == 1e-3
