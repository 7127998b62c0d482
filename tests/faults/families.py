"""One tiny training of each kind, as a command: some dozens of steps of a few milliseconds, with a checkpoint every third.

Read by conftest.py. A new stage that trains gets a line in FAMILIES and a function below, and with that every test here.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import yaml

from duihua.config import to_mapping
from duihua.data.source import SourceConfig
from duihua.data.word_corpus import write_word_corpus
from duihua.engine.beam_settings import BeamSettings
from duihua.models.bundle import ModelCard, Normalisation, save_bundle
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder
from duihua.models.heads import ScoredDecoder
from duihua.models.recurrent_config import RecurrentConfig
from duihua.models.transformer_config import TransformerConfig
from duihua.stages.configs.classify import ClassifyConfig
from duihua.stages.configs.dpo import DPOConfig
from duihua.stages.configs.grpo import GRPOConfig
from duihua.stages.configs.ppo import PPOConfig
from duihua.stages.configs.pretrain import PretrainConfig, ShapeConfig
from duihua.stages.configs.recurrent import RecurrentTrainingConfig
from duihua.stages.configs.rejection_sampling import RejectionSamplingConfig
from duihua.stages.configs.reward import RewardConfig
from duihua.stages.configs.sft import SFTConfig
from duihua.stages.configs.translate import TranslateConfig
from duihua.text.tokenizer import Tokenizer
from duihua.training.config import OptimizerConfig, TrainerConfig

WORDS = ("red", "blue", "green", "one", "two", "three", "four", "cat", "dog", "bird", "sings", "runs", "sleeps")
TRAINER = TrainerConfig(log_every=4, checkpoint_seconds=1e9, checkpoint_steps=3)
ADAM = OptimizerConfig(kind="adamw", learning_rate=3e-3, beta1=0.9, beta2=0.95)


@dataclasses.dataclass(frozen=True)
class Family:
    """A kind of stage: its command without --output, the folder that everything below belongs to, and the file of data that it
    trains on. rows: of a micro-batch, as the memory test counts them."""

    name: str
    arguments: tuple[str, ...]
    folder: Path
    data: Path
    rows: int


class Makers:
    """Makes the families below one folder; the bundles that they start from are shared."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        texts = [" ".join(WORDS), "say name please zzz", "user assistant"] * 6
        self.tokenizer = Tokenizer.train(texts, 290)
        self.tokenizer.save(folder / "tokenizer")
        shape = DecoderConfig(
            vocabulary_size=self.tokenizer.vocabulary_size, width=16, layers=1, heads=2, key_value_heads=1,
            head_width=8, feed_forward_width=24, context=48,
        )  # fmt: skip
        decoder = Decoder(shape).initialise(0)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, weight in decoder.named_parameters():  # else the blocks are the identity at first
                if name.endswith(("output.weight", "down.weight", "head.weight")):
                    weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))
        save_bundle(folder / "policy", decoder, self.tokenizer, ModelCard(title="tiny", stage="sft"))
        ending = copy.deepcopy(decoder)
        with torch.no_grad():  # it likes to stop, else none of its replies could be learnt from
            ending.head.weight[self.tokenizer.im_end_id] = torch.randn(16, generator=generator)
        save_bundle(folder / "ending", ending, self.tokenizer, ModelCard(title="tiny", stage="sft"))
        judge = ScoredDecoder(decoder).initialise_score(1)
        card = ModelCard(title="tiny", stage="reward")
        save_bundle(folder / "judge", judge, self.tokenizer, card, normalisation=Normalisation(0.0, 1.0))

    def make(self, name: str) -> Family:
        """The family of that name, with its data."""
        place = self.folder / name
        place.mkdir()
        config, inputs, data, rows = FAMILIES[name](self, place)
        settings = place / "settings.yaml"
        stated = changed(to_mapping(config), to_mapping(type(config)()))
        settings.write_text(yaml.safe_dump(stated), encoding="utf-8")
        words = [name, "--config", str(settings), "--threads", "1", "--seed", "3", "--data", str(self.folder / "home")]
        for role, bundle in inputs.items():
            words += ["--input", f"{role}={self.folder / bundle}"]
        return Family(name, tuple(words), self.folder, data, rows)

    # -- data -----------------------------------------------------------------------------------------------------------

    def text(self, place: Path) -> SourceConfig:
        lines = [{"text": " ".join(WORDS[(i * k) % len(WORDS)] for k in range(1, 9 + i % 5))} for i in range(80)]
        return _written(place / "text.jsonl", lines, "text")

    def conversations(self, place: Path) -> SourceConfig:
        lines = []
        for i in range(80):
            word, other = WORDS[i % len(WORDS)], WORDS[(i // 3) % len(WORDS)]
            said = [{"role": "user", "content": f"say {word} {other} {i}"}, {"role": "assistant", "content": word}]
            lines.append({"messages": said})
        held_out = _written(place / "heldout.jsonl", lines[:8], "conversations")
        return _written(place / "conversations.jsonl", lines[8:], "conversations", heldout=held_out.path)

    def preferences(self, place: Path) -> SourceConfig:
        lines = [
            {"prompt": f"name {WORDS[i % 13]} {i}", "chosen": f"{WORDS[i % 13]} sings", "rejected": f"zzz {i % 7}"}
            for i in range(70)
        ]
        return _written(place / "preferences.jsonl", lines, "preferences")


def changed(settings: dict[str, Any], plain: dict[str, Any]) -> dict[str, Any]:
    """What of `settings` is not as by default: reading all of it would take a tenth of a run's time."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict) and isinstance(plain.get(name), dict):
            if inner := changed(value, plain[name]):
                found[name] = inner
        elif name not in plain or value != plain[name]:
            found[name] = value
    return found


def _written(path: Path, lines: list[dict[str, Any]], kind: Any, **more: Any) -> SourceConfig:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return SourceConfig(path=str(path), kind=kind, **more)


Made = tuple[Any, dict[str, str], Path, int]
"""A config, its inputs (role -> folder), the file of its data, rows of a micro-batch."""


def pretrain(makers: Makers, place: Path) -> Made:
    """With Muon, so that its momentum is among what must survive, and with evaluations."""
    shape = ShapeConfig(width=16, layers=1, heads=2, key_value_heads=1, head_width=8, feed_forward_width=24)
    source = makers.text(place)
    trainer = dataclasses.replace(TRAINER, evaluate_every=9)
    config = PretrainConfig(sources=(source,), shape=shape, length=24, rows=4, steps=36, trainer=trainer)
    return config, {"tokenizer": "tokenizer"}, Path(source.path), 4


def recurrent(makers: Makers, place: Path) -> Made:
    """An LSTM that carries its state, with looks and averaging."""
    names = ("ann", "bob", "cat", "dan", "eve")
    said = [f"{names[i * i % 5]} is {names[(i * i + i // 7) % 5]}" for i in range(170)]
    write_word_corpus(place / "corpus", {"train": said[:130], "valid": said[130:150], "test": said[150:]})
    config = RecurrentTrainingConfig(
        corpus=str(place / "corpus"), shape=RecurrentConfig(cell="lstm", width=12, layers=1, output_dropout=0.1),
        rows=4, length=8, epochs=2.2, looks_an_epoch=3, averaging_patience=1, samples=1, sample_tokens=4,
        optimizer=ADAM, trainer=TRAINER,
    )  # fmt: skip
    return config, {}, place / "corpus" / "ptb.train.txt", 4


def sft(makers: Makers, place: Path) -> Made:
    """With evaluations, the best of which is kept."""
    source = makers.conversations(place)
    trainer = dataclasses.replace(TRAINER, evaluate_every=6, keep_best="heldout_loss", end_with="best")
    config = SFTConfig(
        sources=(source,), batch_tokens=48 * 4, micro_batch_tokens=48 * 4, steps=24, reply_tokens=4, samples=2,
        heldout_conversations=4, trainer=trainer,
    )  # fmt: skip
    return config, {"policy": "policy"}, Path(source.path), 4


def reward(makers: Makers, place: Path) -> Made:
    """Samples replies first, then learns from pairs, with evaluations, the best of which is kept."""
    preferences, conversations = makers.preferences(place), makers.conversations(place)
    trainer = dataclasses.replace(
        TRAINER, evaluate_every=5, keep_best="heldout_accuracy", best_is="highest", end_with="best"
    )
    config = RewardConfig(
        preferences=(preferences,), conversations=(conversations,), sampled_pairs=16, sampled_candidates=1,
        off_topic_pairs=6, heldout_sampled_pairs=2, heldout_off_topic_pairs=2, reply_tokens=4, batch_pairs=4,
        micro_batch_pairs=4, normalisation_samples=8, verification_samples=8, epochs=1, optimizer=ADAM,
        trainer=trainer,
    )  # fmt: skip
    return config, {"policy": "policy"}, Path(preferences.path), 8


def ppo(makers: Makers, place: Path) -> Made:
    """A rollout, and four updates on it, some times."""
    source = makers.conversations(place)
    config = PPOConfig(
        sources=(source,), train_prompts=24, heldout_prompts=4, prompt_tokens=40, reply_tokens=4, iterations=4,
        rollout_prompts=8, epochs=3, minibatches=2, micro_batch=4, samples=1, slots=8, kl_target=1.0, optimizer=ADAM,
        trainer=TRAINER,
    )  # fmt: skip
    return config, {"policy": "policy", "reward": "judge"}, Path(source.path), 4


def dpo(makers: Makers, place: Path) -> Made:
    """Samples replies, asks the reference, then learns from pairs; a row for each, so that a micro-batch has four."""
    preferences, conversations = makers.preferences(place), makers.conversations(place)
    config = DPOConfig(
        preferences=(preferences,), conversations=(conversations,), sampled_pairs=16, sampled_candidates=1,
        heldout_sampled_pairs=2, reply_tokens=4, batch_pairs=4, row_tokens=1, micro_batch_tokens=48 * 4, heldout_prompts=4,
        prompt_tokens=40, samples=1, optimizer=ADAM, trainer=dataclasses.replace(TRAINER, evaluate_every=5),
    )  # fmt: skip
    return config, {"policy": "policy", "reward": "judge"}, Path(preferences.path), 4


def grpo(makers: Makers, place: Path) -> Made:
    """Groups of two replies, and six updates on each rollout."""
    source = makers.conversations(place)
    config = GRPOConfig(
        sources=(source,), train_prompts=24, heldout_prompts=4, prompt_tokens=40, reply_tokens=4, iterations=4,
        rollout_prompts=4, group=2, epochs=3, minibatches=2, micro_batch=4, samples=1, slots=8, optimizer=ADAM,
        trainer=TRAINER,
    )  # fmt: skip
    return config, {"policy": "policy", "reward": "judge"}, Path(source.path), 4


def rejection_sampling(makers: Makers, place: Path) -> Made:
    """Samples and judges first, then fine-tunes on what is best."""
    source = makers.conversations(place)
    config = RejectionSamplingConfig(
        sources=(source,), candidates=3, train_prompts=40, heldout_prompts=4, prompt_tokens=40, reply_tokens=4, samples=1,
        batch_tokens=48 * 4, micro_batch_tokens=48 * 4, epochs=3, optimizer=ADAM, trainer=TRAINER,
    )  # fmt: skip
    return config, {"policy": "ending", "reward": "judge"}, Path(source.path), 4


def classify(makers: Makers, place: Path) -> Made:
    """With dropout, whose random state must survive."""
    lines = [{"text": f"{WORDS[i % 4]} {i} {WORDS[7 + i % 3]}", "label": WORDS[7 + i % 3]} for i in range(100)]
    source = _written(place / "labelled.jsonl", lines, "labelled", language="en")
    config = ClassifyConfig(
        source=source, epochs=2, batch=8, micro_batch=8, optimizer=ADAM,
        trainer=dataclasses.replace(TRAINER, evaluate_every=9),
    )  # fmt: skip
    return config, {"policy": "policy"}, Path(source.path), 8


def translate(makers: Makers, place: Path) -> Made:
    """With snapshots, whose mean is the model."""
    ours = ("bo", "ka", "mi", "lu", "so", "ta", "ne", "fi")
    lines = []
    for i in range(120):
        places = [i % 8, (i // 8 + 3) % 8, (i * 5 + i // 8) % 8]
        lines.append({"xx": " ".join(ours[p] for p in places), "en": " ".join(WORDS[p] for p in reversed(places))})
    source = _written(place / "pairs.jsonl", lines, "parallel", languages="xx-en")
    config = TranslateConfig(
        sources=(source,), from_language="xx", to_language="en", vocabulary_size=280, longest=40, epochs=4,
        batch_tokens=260, validation_pairs=2, average=2, keep="averaged",
        transformer=TransformerConfig(
            width=16, encoder_layers=1, decoder_layers=1, heads=2, feed_forward_width=24, most_tokens=48, dropout=0.1
        ),
        optimizer=ADAM, trainer=dataclasses.replace(TRAINER, evaluate_every=8), search=BeamSettings(beam=2),
    )  # fmt: skip
    return config, {}, Path(source.path), 8


FAMILIES: Mapping[str, Callable[[Makers, Path], Made]] = MappingProxyType(
    {
        made.__name__: made
        for made in (
            pretrain, recurrent, sft, reward, ppo, dpo, grpo, rejection_sampling, classify, translate
        )
    }
)  # fmt: skip
