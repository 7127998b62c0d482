"""Recurrent language models by truncated back-propagation through time (Mikolov et al. 2010; Zaremba et al. 2014).

The loss is the decoder's, -sum_t log P(w_t | w_1..w_{t-1}); what differs is how the past comes in. A decoder is given rows from
anywhere. A recurrent network reads each row from where the last step left it: the state is handed on, without its graph, so
that the memory is as long as the text and the gradient as long as the window. The state is part of the batch source and
stands in its checkpoints; a run that was interrupted goes on with the memory that it had.
"""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from duihua import console
from duihua.data.records import Document
from duihua.data.source import Source, open_source, refuse_as_text
from duihua.data.starter.wiki_words import WikiWords
from duihua.data.streams import STATE, ContiguousBatches
from duihua.data.word_corpus import PARTS, Part, read_word_corpus
from duihua.engine.recurrent_text import continue_ids
from duihua.engine.settings import SamplingSettings
from duihua.errors import ConfigError, DataError
from duihua.evaluation.stream_loss import StreamLoss, stream_loss
from duihua.models.model_card import ModelCard
from duihua.models.recurrent import RecurrentLM, States, detached
from duihua.models.recurrent_bundle import save_recurrent
from duihua.stages.configs.recurrent import RecurrentTrainingConfig
from duihua.stages.context import StageContext, StageResult
from duihua.stages.pretrain import source_terms
from duihua.stages.watched_batches import WatchedBatches, evaluation
from duihua.text.vocabulary import Vocabulary, load_vocabulary
from duihua.training.trainer import Batch, LossParts, Trainer

LOOK_ROWS = 20
"""Rows in which the validation text is read during training; the figures of the result are of one row."""
TRAINING_SAMPLE = 50_000
"""Tokens of the training text on which the training perplexity of the result is measured."""


@dataclasses.dataclass(frozen=True)
class Corpus:
    """What the stage reads: ids of the three parts, and where they come from."""

    vocabulary: Vocabulary
    ids: dict[Part, npt.NDArray[np.int64]]
    terms: list[dict[str, str]]
    facts: dict[str, Any]


class TruncatedLoss:
    """Next-token loss of a window that begins with the state of the one before it, which it hands on."""

    def __init__(self, batches: ContiguousBatches) -> None:
        self.batches = batches

    def __call__(self, network: nn.Module, batch: Batch) -> LossParts:
        """batch: as `ContiguousBatches` gives it."""
        assert isinstance(network, RecurrentLM)
        hidden, states = network(batch["token_ids"], read_states(batch))
        self.batches.carry(named_states(detached(states)))
        ones = hidden.new_ones(batch["targets"].shape)
        total, _ = network.next_token_losses(hidden, batch["targets"], ones)
        return LossParts(total, float(batch["targets"].numel()))


def named_states(states: States) -> dict[str, Tensor]:
    """{"layer.part": tensor}, as a batch and a checkpoint hold them."""
    return {f"{layer}.{part}": tensor for layer, state in enumerate(states) for part, tensor in enumerate(state)}


def read_states(batch: Batch) -> States | None:
    """The inverse, out of a batch; None where an epoch begins."""
    layers: dict[int, dict[int, Tensor]] = {}
    for name, tensor in batch.items():
        if name.startswith(STATE):
            layer, part = name.removeprefix(STATE).split(".")
            layers.setdefault(int(layer), {})[int(part)] = tensor
    return tuple(tuple(layers[n][p] for p in sorted(layers[n])) for n in sorted(layers)) or None


def run(config: RecurrentTrainingConfig, context: StageContext) -> StageResult:
    """Train on `config.corpus`, or on `config.sources` under the input "tokenizer"; give a recurrent bundle.

    Raises ConfigError for settings that do not fit together, DataError for a corpus that is missing, broken or too small.
    """
    started = time.monotonic()
    corpus = read_corpus(config, context)
    vocabulary = corpus.vocabulary
    shape = dataclasses.replace(
        config.shape, vocabulary_size=vocabulary.vocabulary_size, end_id=vocabulary.end_of_text_id
    )
    network = RecurrentLM(shape).initialise(context.seed)
    batches = ContiguousBatches(corpus.ids["train"], config.rows, config.length, context.seed)
    steps = max(1, round(config.epochs * batches.steps_an_epoch))
    every = max(1, batches.steps_an_epoch // config.looks_an_epoch)
    watched = WatchedBatches(
        batches,
        network,
        lambda: stream_loss(network, corpus.ids["valid"], LOOK_ROWS).mean,
        every,
        config.averaging_patience,
    )
    by_looks = config.schedule.kind == "plateau"  # then the Trainer's own looks, at the training loss, never come
    trainer = Trainer(
        network,
        TruncatedLoss(batches),
        watched,
        steps=steps,
        optimizer=config.optimizer,
        schedule=dataclasses.replace(config.schedule, step_size=1 << 62) if by_looks else config.schedule,
        config=dataclasses.replace(config.trainer, evaluate_every=every),
        directory=context.directory,
        device=context.device,
        seed=context.seed,
        evaluate=evaluation(watched),
        label="recurrent",
    )
    watched.plateau = trainer.plateau
    console.say(
        f"recurrent: {shape.cell}, {shape.parameters:,} parameters, {len(corpus.ids['train']):,} tokens, {steps:,} steps "
        f"of {config.rows * config.length}"
    )
    trained = trainer.run()
    watched.finish()
    losses: dict[str, StreamLoss] = {
        "train": stream_loss(network, corpus.ids["train"][:TRAINING_SAMPLE], LOOK_ROWS),
        "valid": stream_loss(network, corpus.ids["valid"]),
        "test": stream_loss(network, corpus.ids["test"]),
    }
    console.table(
        "perplexity over all tokens, ends of sentences included",
        ["part", "tokens", "perplexity"],
        [[part, found.tokens, f"{found.perplexity:.2f}"] for part, found in losses.items()],
    )
    metrics: dict[str, Any] = {
        "cell": shape.cell,
        "parameters": shape.parameters,
        "steps": trained.steps,
        "tokens": trained.tokens,
        "loss": trained.loss,
        "skipped_steps": trained.skipped_steps,
        "perplexity": {part: found.perplexity for part, found in losses.items()},
        "nats": {part: found.nats for part, found in losses.items()},
        "measured_tokens": {part: found.tokens for part, found in losses.items()},
        "looks": [math.exp(min(loss, 700.0)) for loss in watched.history],
        "averaged": watched.averaging,
        "corpus": corpus.facts,
        "samples": samples(network, vocabulary, config, context.seed),
        "expected": {"first_loss": math.log(vocabulary.vocabulary_size)},
        "settings": dataclasses.asdict(shape),
        "terms": corpus.terms,
        "tokens_per_second": trained.tokens_per_second,
        "training_seconds": trained.seconds,
        "seconds": time.monotonic() - started,
    }
    card = ModelCard(
        title=f"Duihua recurrent language model ({shape.cell})",
        stage="recurrent",
        description=f"Trained on {corpus.facts['name']}; only Duihua reads it.",
        terms=corpus.terms,
        metrics={"perplexity": metrics["perplexity"]},
    )
    save_recurrent(context.directory, network, vocabulary, card)
    result = StageResult(context.directory, metrics)
    result.save(context.directory)
    return result


def read_corpus(config: RecurrentTrainingConfig, context: StageContext) -> Corpus:
    """The text that the config names. Raises ConfigError or DataError."""
    if config.sources:
        return _of_sources(config, context)
    if "tokenizer" in context.inputs:
        raise ConfigError(
            "a corpus of words has its own vocabulary, and a tokenizer was given as well",
            where="recurrent.corpus",
            remedy="Name `sources` for the tokenizer to cut, or leave the tokenizer out",
        )
    if config.corpus == WikiWords.name:
        source = WikiWords(context.data_directory)
        words, terms = source.corpus(), source_terms([source])
    else:
        words, terms = read_word_corpus(Path(config.corpus).expanduser()), []
    if config.types:
        words = words.with_types(config.types)
    facts = words.describe()
    unknown = words.unknown_share
    console.table(
        f"{words.name}: {words.vocabulary.vocabulary_size:,} types, ends of sentences counted as tokens",
        ["part", "sentences", "tokens", "unknown"],
        [[part, words.sentences[part], words.tokens[part], f"{100 * unknown[part]:.1f} %"] for part in PARTS],
    )
    return Corpus(words.vocabulary, dict(words.ids), terms, facts)


def _of_sources(config: RecurrentTrainingConfig, context: StageContext) -> Corpus:
    vocabulary = load_vocabulary(context.input("tokenizer"))
    end = vocabulary.end_of_text_id
    texts: dict[Part, list[str]] = {part: [] for part in PARTS}
    sources: list[Source] = []
    for each in config.sources:
        source = open_source(each, context.data_directory)
        if source.kind != "text":
            refuse_as_text(source, "recurrent.sources")
        sources.append(source)
        texts["train"] += [record.text for record in source.records("train") if isinstance(record, Document)]
        held_out = [record.text for record in source.records("heldout") if isinstance(record, Document)]
        texts["valid"] += held_out[::2]
        texts["test"] += held_out[1::2]
    ids: dict[Part, npt.NDArray[np.int64]] = {}
    for part in PARTS:
        made: list[int] = []
        for document in vocabulary.encode_batch(texts[part]):
            made += [*document, end]
        if len(made) < 2:
            raise DataError(
                f"the sources hold no text for the {part} part",
                where="recurrent.sources",
                remedy="Look at them with `duihua data check`",
            )
        ids[part] = np.asarray(made, dtype=np.int64)
    facts = {
        "name": ", ".join(source.name for source in sources),
        "vocabulary_size": vocabulary.vocabulary_size,
        "tokens": {part: len(ids[part]) for part in PARTS},
        "left_out": {source.name: source.left_out.to_mapping() for source in sources},
    }
    return Corpus(vocabulary, ids, source_terms(sources), facts)


def samples(network: RecurrentLM, vocabulary: Vocabulary, config: RecurrentTrainingConfig, seed: int) -> list[str]:
    """Texts that the model writes after the end of a sentence, from its own distribution."""
    made = []
    for number in range(config.samples if config.sample_tokens else 0):
        settings = SamplingSettings(max_new_tokens=config.sample_tokens, stop_ids=(), seed=seed + number)
        made.append(vocabulary.decode(continue_ids(network, [], settings)).strip())
    return made
