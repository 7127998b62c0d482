"""The n-gram stage: count text, and say how well counts alone predict text that was not counted.

Scored by the same rule as every other language model (evaluation/perplexity.py): each held-out document from its own start,
every token once. Perplexities compare only between models of one vocabulary; bits per byte between all, but a vocabulary of
words does not say where the spaces stood nor which word an unknown one was. What such a model gives is a lower bound, and is
called so.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from duihua import console
from duihua.data.records import Document, Split
from duihua.data.source import Source, open_source, refuse_as_text
from duihua.errors import ConfigError, DataError
from duihua.evaluation.language_model import Counted
from duihua.evaluation.perplexity import DocumentScore, TextFigures, figures, score_documents
from duihua.models.counts.ngram import NGram
from duihua.models.counts.ngram_bundle import save_ngram
from duihua.models.model_card import ModelCard
from duihua.stages.configs.ngram import NGramConfig
from duihua.stages.context import StageContext, StageResult
from duihua.stages.left_out import say_left_out
from duihua.stages.pretrain import source_terms
from duihua.text.characters import CharacterVocabulary
from duihua.text.vocabulary import Vocabulary, load_vocabulary
from duihua.text.words import WordVocabulary

BATCH = 1000
"""Documents that are encoded together."""


def run(config: NGramConfig, context: StageContext) -> StageResult:
    """Count `config.sources` and give an n-gram bundle. Input "tokenizer" where its tokens are counted.

    Raises ConfigError for a vocabulary that was not given, DataError for an empty corpus.
    """
    started = time.monotonic()
    sources = [open_source(source, context.data_directory) for source in config.sources]
    for source in sources:
        if source.kind != "text":
            refuse_as_text(source, "ngram.sources")
    vocabulary = _vocabulary(config, context, sources)
    end = vocabulary.end_of_text_id
    sequences = [np.array([*ids, end]) for ids in _encoded(documents(sources, "train"), vocabulary)]
    left_out = {source.name: source.left_out.to_mapping() for source in sources}
    for source in sources:
        say_left_out("ngram", source.name, source.left_out.counts)
    tokens = sum(map(len, sequences))
    if not tokens:
        raise DataError(
            "the sources hold no text to train on",
            where="ngram.sources",
            remedy="Look at them with `duihua data check`",
        )
    console.say(f"ngram: {tokens:,} tokens of {vocabulary.vocabulary_size:,} kinds, order {config.order}")
    heldout = [document for document in documents(sources, "heldout") if document.text]
    orders: dict[str, dict[str, Any]] = {}
    for order in [*(range(1, config.order) if config.lower_orders else ()), config.order]:
        model = NGram.fit(
            sequences,
            order,
            vocabulary.vocabulary_size,
            end,
            smoothing=config.smoothing,
            discounting=config.discounting,
            discount=config.discount,
        )
        scores = score_documents(Counted(model, vocabulary, f"order {order}"), heldout)
        found = figures(scores)
        orders[str(order)] = {
            "perplexity": {name: part.perplexity.to_dict() for name, part in found.items()},
            "ngrams": len(model.orders[-1].codes),
        }
    samples = [
        vocabulary.decode(model.generate(tokens=config.sample_tokens, seed=context.seed + number))
        for number in range(config.samples)
    ]
    unknown = sum(score.unknown for score in scores)
    exact = vocabulary.lossless and not unknown
    metrics: dict[str, Any] = {
        "order": config.order,
        "vocabulary": _kind(vocabulary),
        "vocabulary_size": vocabulary.vocabulary_size,
        "tokens": tokens,
        "ngrams": [len(order.codes) for order in model.orders],
        "discounts": [order.discounts.to_mapping() for order in model.orders],
        "perplexity": {name: part.perplexity.value for name, part in found.items()},
        "perplexity_interval": {name: part.perplexity.to_dict() for name, part in found.items()},
        "bits_per_byte" if exact else "bits_per_byte_at_least": _bits(scores, found),
        "unknown_share": unknown / sum(score.tokens for score in scores),
        "heldout_tokens": found["all"].tokens,
        "heldout_bytes": found["all"].bytes,
        "orders": orders,
        "samples": samples,
        "left_out": left_out,
        "terms": source_terms(sources),
        "seconds": time.monotonic() - started,
    }
    _show(metrics)
    card = ModelCard(
        title=f"Duihua {config.order}-gram model",
        stage="ngram",
        description=f"Counts of {_kind(vocabulary)}, smoothing {config.smoothing}. It writes with "
        "`duihua ngram DIR --generate`, and is scored with `duihua evaluate perplexity DIR`.",
        terms=metrics["terms"],
        metrics={"held-out perplexity": found["all"].perplexity.to_dict()},
    )
    save_ngram(context.directory, model, vocabulary, card)
    result = StageResult(context.directory, metrics)
    result.save(context.directory)
    return result


def documents(sources: Sequence[Source], split: Split) -> Iterator[Document]:
    """The documents of all sources, in order."""
    for source in sources:
        for record in source.records(split):
            if isinstance(record, Document):
                yield record


def _vocabulary(config: NGramConfig, context: StageContext, sources: Sequence[Source]) -> Vocabulary:
    """The input tokenizer, or the words or characters of the training text."""
    kind = config.vocabulary or ("tokenizer" if "tokenizer" in context.inputs else "words")
    if kind == "tokenizer":
        if "tokenizer" not in context.inputs:
            raise ConfigError(
                "there is no tokenizer",
                where="ngram.vocabulary",
                remedy="Give one (--input tokenizer=DIR), or choose words or characters",
            )
        return load_vocabulary(context.inputs["tokenizer"])
    texts = (document.text for document in documents(sources, "train"))
    if kind == "characters":
        return CharacterVocabulary.train(texts, config.vocabulary_size)
    return WordVocabulary.train(texts, config.vocabulary_size, config.segmentation, config.lowercase)


def _encoded(found: Iterable[Document], vocabulary: Vocabulary) -> Iterator[list[int]]:
    waiting: list[str] = []
    for document in found:
        waiting.append(document.text)
        if len(waiting) == BATCH:
            yield from vocabulary.encode_batch(waiting)
            waiting.clear()
    yield from vocabulary.encode_batch(waiting)


def _bits(scores: Sequence[DocumentScore], found: dict[str, TextFigures]) -> dict[str, float]:
    """Bits of all tokens over bytes of all text, for each language."""
    table = {}
    for name in found:
        part = [score for score in scores if name in ("all", score.language)]
        table[name] = sum(score.nats for score in part) / math.log(2) / sum(score.bytes for score in part)
    return table


def _kind(vocabulary: Vocabulary) -> str:
    if isinstance(vocabulary, WordVocabulary):
        return f"words ({vocabulary.segmentation})"
    return "characters" if isinstance(vocabulary, CharacterVocabulary) else "tokens"


def _show(metrics: dict[str, Any]) -> None:
    rows = [
        [int(order), one["ngrams"], *(one["perplexity"]["all"][key] for key in ("value", "low", "high"))]
        for order, one in metrics["orders"].items()
    ]
    console.table("ngram: held-out perplexity", ["order", "n-grams", "perplexity", "low", "high"], rows)
    bits, bound = metrics.get("bits_per_byte"), metrics.get("bits_per_byte_at_least")
    if bits is not None:
        console.say(f"ngram: {bits['all']:.4f} bits per byte")
    elif bound is not None:
        console.say(
            f"ngram: at least {bound['all']:.4f} bits per byte (spaces and unknown words, "
            f"{metrics['unknown_share']:.2%} of all, are not predicted)"
        )
    for text in metrics["samples"]:
        console.say(f"ngram: it writes: {' '.join(text.split())}")
