"""The recurrent stage: it learns, an interrupted run ends with the same bytes, what a look decides is in the checkpoint."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from duihua.data.source import SourceConfig
from duihua.data.word_corpus import read_word_corpus, write_word_corpus
from duihua.errors import ConfigError, DataError
from duihua.files import sha256_file
from duihua.models.recurrent_bundle import load_recurrent
from duihua.models.recurrent_config import RecurrentConfig
from duihua.stages import find_stage, recurrent
from duihua.stages.configs.recurrent import RecurrentTrainingConfig
from duihua.stages.context import StageContext, StageResult
from duihua.stages.execution import execute
from duihua.stages.older_models import counted_losses
from duihua.stages.recurrent import TruncatedLoss, named_states, read_states
from duihua.stages.watched_batches import WatchedBatches
from duihua.text.characters import CharacterVocabulary
from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig
from duihua.training.schedules import Plateau
from duihua.training.trainer import Batch

Killed = Callable[[Any, str, int], AbstractContextManager[None]]


def sentences(count: int, seed: int) -> list[str]:
    """Sentences in which the third word repeats the first: what a bigram cannot know."""
    generator = torch.Generator().manual_seed(seed)
    names = ["ann", "bob", "cat", "dan", "eve", "fay"]
    drawn = torch.randint(len(names), (count,), generator=generator).tolist()
    return [f"{names[n]} is {names[n]}" for n in drawn]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ptb")
    write_word_corpus(folder, {"train": sentences(400, 0), "valid": sentences(40, 1), "test": sentences(40, 2)})
    return folder


def config(corpus: Path, **changes: Any) -> RecurrentTrainingConfig:
    """A run of about two seconds."""
    base = RecurrentTrainingConfig(
        corpus=str(corpus),
        shape=RecurrentConfig(cell="lstm", width=24, layers=1, output_dropout=0.1, weight_dropout=0.1),
        rows=8, length=12, epochs=3.0, samples=1, sample_tokens=12,
        optimizer=OptimizerConfig(kind="adamw", learning_rate=2e-2, beta1=0.9, beta2=0.99),
        trainer=TrainerConfig(clip_norm=1.0, log_every=5, checkpoint_seconds=1e9),
    )  # fmt: skip
    return replace(base, **changes)


def run(settings: RecurrentTrainingConfig, folder: Path, **inputs: Path) -> StageResult:
    return execute(find_stage("recurrent"), settings, StageContext(folder, inputs, folder, threads=1))


def bytes_of(folder: Path) -> dict[str, str]:
    return {name: sha256_file(folder / name) for name in ("model.safetensors", "config.json", "words.json")}


def test_the_lstm_learns_what_no_bigram_can(corpus: Path, tmp_path: Path) -> None:
    shape = RecurrentConfig(cell="lstm", width=24, layers=1, initial_range=1.0)
    result = run(config(corpus, epochs=8.0, shape=shape), tmp_path / "m")
    found = result.metrics["perplexity"]["test"]
    bigram = counted_losses(read_word_corpus(corpus), "bigram")[0]["test"].perplexity
    assert found < 1.75
    assert bigram > 2.3  # of four tokens one is free: 6 ** (1 / 4) = 1.57; to a bigram two are: 2.45
    assert result.metrics["measured_tokens"] == {"train": 1600, "valid": 160, "test": 160}
    assert result.metrics["looks"][-1] < result.metrics["looks"][0]
    assert result.metrics["samples"][0]
    bundle = load_recurrent(tmp_path / "m")
    ids = read_word_corpus(corpus).ids["test"]
    nats = -float(bundle.network.log_probabilities([bundle.config.end_id, *ids]).sum())
    assert math.exp(nats / len(ids)) == pytest.approx(found, rel=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "looks_an_epoch": 3,
            "averaging_patience": 1,
            "schedule": ScheduleConfig(kind="plateau", warmup_steps=0, patience=0, gamma=0.5),
            "optimizer": OptimizerConfig(kind="sgd", learning_rate=8.0, momentum=0.0),
        },
    ],
    ids=["adamw", "sgd, averaging, plateau"],
)
def test_an_interrupted_run_ends_with_the_same_bytes(
    corpus: Path, tmp_path: Path, killed: Killed, changes: dict[str, Any]
) -> None:
    whole = config(corpus, **changes, trainer=TrainerConfig(log_every=5, checkpoint_seconds=1e9, checkpoint_steps=7))
    first = run(whole, tmp_path / "whole")
    with killed(TruncatedLoss, "__call__", 38):
        run(whole, tmp_path / "parts")
    second = run(whole, tmp_path / "parts")
    assert bytes_of(tmp_path / "whole") == bytes_of(tmp_path / "parts")
    for name in ("looks", "perplexity", "loss", "averaged"):
        assert first.metrics[name] == second.metrics[name]


def test_without_the_carried_state_the_same_run_ends_elsewhere(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: the state is used, so that forgetting it cannot go unseen."""
    run(config(corpus, epochs=0.5), tmp_path / "with")
    monkeypatch.setattr(recurrent, "read_states", lambda batch: None)
    run(config(corpus, epochs=0.5), tmp_path / "without")
    assert bytes_of(tmp_path / "with")["model.safetensors"] != bytes_of(tmp_path / "without")["model.safetensors"]


def test_states_go_into_a_batch_and_out_again() -> None:
    states = tuple(tuple(torch.full((2, 3), float(10 * layer + part)) for part in range(2)) for layer in range(12))
    batch = {f"state.{name}": tensor for name, tensor in named_states(states).items()}
    found = read_states(batch)
    assert found is not None
    pairs = zip(itertools.chain(*found), itertools.chain(*states), strict=True)  # twelve layers: 10 comes after 9
    assert all(torch.equal(a, b) for a, b in pairs)
    assert read_states({"token_ids": torch.zeros(1)}) is None


# -- looks --------------------------------------------------------------------------------------------------------------------


class Steps:
    """A source of nothing."""

    def next(self) -> list[Batch]:
        return []

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class Script:
    """A network of one number, moved by hand, whose loss is read from a list."""

    def __init__(self, losses: list[float], patience: int = 0) -> None:
        self.network = nn.Linear(1, 1, bias=False)
        self.seen: list[float] = []
        self.losses = iter(losses)
        self.watched = WatchedBatches(Steps(), self.network, self.look, 1, patience)

    def look(self) -> float:
        self.seen.append(self.weight)
        return next(self.losses)

    @property
    def weight(self) -> float:
        return float(self.network.weight.detach())

    def train(self, weights: list[float]) -> None:
        for weight in weights:
            self.watched.next()
            with torch.no_grad():
                self.network.weight.fill_(weight)
        self.watched.finish()


def test_the_best_look_gives_the_weights() -> None:
    script = Script([3.0, 1.0, 2.0])
    script.train([10.0, 20.0, 30.0])
    assert script.watched.history == [3.0, 1.0, 2.0]
    assert script.weight == 20.0


def test_averaging_begins_when_a_look_is_worse_than_an_old_one() -> None:
    script = Script([3.0, 2.0, 2.5, 2.6, 1.0, 0.5], patience=1)
    script.train([1.0, 2.0, 3.0, 4.0, 5.0, 9.0])
    # the third look (2.5) is not worse than the best that is more than one look old (3.0), the fourth is (2.6 > 2.0)
    assert script.seen == [1.0, 2.0, 3.0, 4.0, 4.5, 6.0]  # then the mean of 4 and 5, and of 4, 5 and 9
    assert script.watched.averaging
    assert script.weight == 6.0


def test_the_rate_falls_by_the_validation_loss() -> None:
    script = Script([3.0, 2.0, 2.5, 2.6])
    script.watched.plateau = Plateau(ScheduleConfig(kind="plateau", patience=0, gamma=0.25))
    script.train([1.0, 2.0, 3.0, 4.0])
    assert script.watched.plateau.factor == 0.25**2


# -- other texts and mistakes -------------------------------------------------------------------------------------------------


def test_sources_are_cut_by_the_input_vocabulary(tmp_path: Path) -> None:
    texts = [f"document {n} says line {n % 7} of the text" for n in range(90)]
    for name, part in (("train", texts[:80]), ("held", texts[80:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in part))
    CharacterVocabulary.train(texts).save(tmp_path / "characters")
    source = SourceConfig(path=str(tmp_path / "train.jsonl"), heldout=str(tmp_path / "held.jsonl"), kind="text")
    result = run(config(tmp_path, sources=(source,), epochs=0.5), tmp_path / "m", tokenizer=tmp_path / "characters")
    assert isinstance(load_recurrent(tmp_path / "m").vocabulary, CharacterVocabulary)
    held = [len(text) + 1 for text in texts[80:]]  # each with its end
    assert result.metrics["measured_tokens"]["valid"] == sum(held[::2])
    assert result.metrics["measured_tokens"]["test"] == sum(held[1::2])


def test_mistakes_are_named(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a tokenizer was given as well"):
        run(config(corpus), tmp_path / "m", tokenizer=tmp_path)
    with pytest.raises(DataError, match="no such directory"):
        run(config(tmp_path / "nowhere"), tmp_path / "m")
    with pytest.raises(ConfigError, match="needs the input 'tokenizer'"):
        run(config(corpus, sources=(SourceConfig(path=str(corpus)),)), tmp_path / "m")
    for field, value in (("rows", 0), ("epochs", 0.0), ("samples", -1)):
        with pytest.raises(ConfigError, match=field):
            config(corpus, **{field: value})
