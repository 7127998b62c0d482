"""A few own texts: a training of which nothing is held out ends with a model; where everything is, that is said at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from duihua.data.records import Document, is_held_out
from duihua.data.source import SourceConfig
from duihua.errors import DataError, TrainingError
from duihua.stages import STAGES
from duihua.stages.configs.pretrain import PretrainConfig, ShapeConfig
from duihua.stages.context import StageContext, StageResult
from duihua.stages.execution import execute
from duihua.text.tokenizer import Tokenizer
from duihua.training.config import TrainerConfig

TEXTS = [f"the cat number {n} and the dog sing and run " * 20 for n in range(99)]
HELD_OUT = [text for text in TEXTS if is_held_out(Document(text, "a", "en"))]
TRAINED = [text for text in TEXTS if text not in HELD_OUT]


def train(texts: list[str], folder: Path, **trainer: int) -> StageResult:
    """A training of two steps on these texts, one a file."""
    files = folder / "texts"
    files.mkdir()
    for number, text in enumerate(texts):
        (files / f"{number}.txt").write_text(text, encoding="utf-8")
    Tokenizer.train(["the cat and the dog sing and run"] * 3, 264).save(folder / "tokenizer")
    shape = ShapeConfig(width=16, layers=1, heads=2, key_value_heads=1, head_width=8, feed_forward_width=16)
    config = PretrainConfig(
        sources=(SourceConfig(path=str(files)),),
        shape=shape,
        length=16,
        rows=2,
        steps=2,
        trainer=TrainerConfig(**trainer),
    )
    context = StageContext(folder / "run", {"tokenizer": folder / "tokenizer"}, folder / "data", "cpu", 1, 1)
    return execute(STAGES["pretrain"], config, context)


def test_a_training_of_which_nothing_is_held_out_says_so_before_it_begins_and_ends_with_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = train(TRAINED[:3], tmp_path)
    assert (result.bundle / "model.safetensors").is_file()
    assert "bits_per_byte" not in result.metrics and result.metrics["heldout_bytes"] == 0
    said = capsys.readouterr()
    assert "no record is held out, so bits per byte will not be measured" in said.err
    assert "held-out bits per byte" not in said.out
    card = (result.bundle / "README.md").read_text(encoding="utf-8")
    assert "held-out bits per byte" not in card


def test_one_held_out_text_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = train([*TRAINED[:3], HELD_OUT[0]], tmp_path)
    assert result.metrics["bits_per_byte"]["all"] > 0
    assert result.metrics["heldout_bytes"] == len(HELD_OUT[0])
    said = capsys.readouterr()
    assert "no record is held out" not in said.err
    bits = result.metrics["bits_per_byte"]["all"]
    assert f"pretrain: held-out bits per byte {bits:.3f}, of {len(HELD_OUT[0])} bytes" in said.out


def test_a_source_of_which_everything_is_held_out_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="texts: every record is held out, and none is left to train on"):
        train(HELD_OUT[:1], tmp_path)


def test_evaluations_of_nothing_are_refused_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="there is nothing that this training could measure"):
        train(TRAINED[:3], tmp_path, evaluate_every=1)
