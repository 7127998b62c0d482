"""The race's scorer counts every byte once and refuses what would flatter a model; its clock ends every system on time."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from duihua.evaluation.bits_per_byte import windows_of

RACE = Path(__file__).parents[2] / "benchmarks" / "race"
VOCABULARY, SEPARATOR, CONTEXT = 300, 299, 8
DOCUMENTS = ["a", "eight ch", "nine char", "漫长的文字，" * 9, "two windows of it and a rest"]


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"race_{name}", RACE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def scoring() -> Iterator[ModuleType]:
    module = loaded("scoring")
    yield module
    del sys.modules[module.__name__]


def encode(text: str) -> list[int]:
    """Bytes, but "ch" is one token of two: tokens and bytes are not the same number."""
    ids: list[int] = []
    for byte in text.encode():
        if byte == ord("h") and ids and ids[-1] == ord("c"):
            ids[-1] = 256
        else:
            ids.append(byte)
    return ids


def token_bytes(token: int) -> bytes:
    return b"ch" if token == 256 else bytes([token])


def uniform(ids: Tensor) -> Tensor:
    return torch.full((*ids.shape, VOCABULARY), -math.log(VOCABULARY), dtype=torch.float64)


def causal(ids: Tensor) -> Tensor:
    """What comes next depends on the present token and on all before it, and on nothing else."""
    past = ids.double().cumsum(dim=1)[..., None]
    return torch.sin(past * torch.linspace(0.1, 1.0, VOCABULARY, dtype=torch.float64)).log_softmax(dim=-1)


def scored(scoring: ModuleType, model: Callable[[Tensor], Tensor] = uniform, **more: Any) -> Any:
    return scoring.score(DOCUMENTS, encode, token_bytes, SEPARATOR, CONTEXT, model, **more)


def test_a_uniform_model_needs_the_vocabulary_s_bits_for_each_token(scoring: ModuleType) -> None:
    found = scored(scoring)
    tokens, size = sum(len(encode(text)) for text in DOCUMENTS), sum(len(text.encode()) for text in DOCUMENTS)
    assert tokens == size - 2  # two of them have a "ch"
    assert (found.tokens, found.bytes, found.documents) == (tokens, size, len(DOCUMENTS))
    assert found.bits_per_byte == pytest.approx(tokens * math.log2(VOCABULARY) / size, rel=1e-12)


@pytest.mark.parametrize("rows", [1, 3, 16])
def test_windows_are_read_alone_and_however_many_at_once(scoring: ModuleType, rows: int) -> None:
    expected = 0.0
    for text in DOCUMENTS:
        for window in windows_of(encode(text), SEPARATOR, CONTEXT):  # Duihua's own rule
            answers = causal(torch.tensor([window[:-1]]))[0]
            expected -= sum(float(answers[place, token]) for place, token in enumerate(window[1:]))
    assert scored(scoring, causal, rows=rows).nats == pytest.approx(expected, rel=1e-9)


def whole_windows_only(ids: Sequence[int], separator: int, context: int) -> list[list[int]]:
    return [window for window in windows_of(ids, separator, context) if len(window) == context + 1]


def without_the_first_token(ids: Sequence[int], separator: int, context: int) -> list[list[int]]:
    return windows_of(ids[1:], ids[0], context)


def overlapping(ids: Sequence[int], separator: int, context: int) -> list[list[int]]:
    stream = [separator, *ids]
    return [stream[start : start + context + 1] for start in range(0, len(ids), context // 2)]


def longer(ids: Sequence[int], separator: int, context: int) -> list[list[int]]:
    return windows_of(ids, separator, 2 * context)


@pytest.mark.parametrize("wrong", [whole_windows_only, without_the_first_token, overlapping, longer])
def test_windows_that_do_not_predict_each_byte_once_are_refused(scoring: ModuleType, wrong: Any) -> None:
    assert scored(scoring, windows=windows_of).bytes
    with pytest.raises(scoring.ScoringError, match=r"bytes predicted|longer than"):
        scored(scoring, windows=wrong)


def test_answers_that_are_no_probabilities_are_refused(scoring: ModuleType) -> None:
    with pytest.raises(scoring.ScoringError, match="not logarithms of probabilities"):
        scored(scoring, lambda ids: uniform(ids) + 1.0)


def test_a_network_that_sees_ahead_is_refused(scoring: ModuleType) -> None:
    with pytest.raises(scoring.ScoringError, match="depends on a later token"):
        scored(scoring, lambda ids: causal(ids.flip(1)).flip(1))


def raced(seconds: float, setup: float, step_seconds: Callable[[int], float]) -> tuple[Any, list[int]]:
    """A race on a clock of its own: (pace, the horizon behind each step)."""
    module = loaded("pace")
    now = [100.0]
    pace = module.Pace(seconds, 100.0, lambda: now[0])
    horizons: list[int] = []
    now[0] += setup
    while not horizons or horizons[-1] > pace.steps:
        now[0] += step_seconds(pace.steps)
        horizons.append(pace.finished_step())
    del sys.modules[module.__name__]
    return pace, horizons


def test_the_horizon_is_what_fits_behind_setup_and_the_first_steps() -> None:
    pace, horizons = raced(100.0, 10.0, lambda step: 20.0 if step == 0 else 0.5)  # the first step compiles
    assert pace.steps == 1 + 140 and pace.elapsed == 100.0
    assert horizons[3] == 1_000_000 and set(horizons[4:]) == {141}
    assert pace.row() == {"seconds": 100.0, "steps": 141, "setup_seconds": 30.5, "step_seconds": 0.5}


def test_a_machine_that_slows_down_ends_on_time_and_a_fixed_number_of_steps_would_not() -> None:
    slower = [0.5 if step < 60 else 1.0 for step in range(1000)]
    pace, horizons = raced(100.0, 0.0, slower.__getitem__)
    assert pace.steps == 60 + 70 and abs(pace.elapsed - 100.0) <= 1.0
    assert horizons[10] == 200 and sum(slower[: horizons[10]]) == 170.0  # control: the first measured horizon, kept


def test_time_that_is_over_before_the_speed_is_known_ends_the_race() -> None:
    pace, horizons = raced(10.0, 30.0, lambda step: 1.0)
    assert (pace.steps, horizons) == (1, [1])
