"""The tokenizer stage: learn byte-pair merges from a balanced sample of English and Chinese (Sennrich et al. 2016).

Why balanced by bytes: merges are learnt by frequency, so the language with more text takes the vocabulary, and the
other is written byte by byte, at two or three times the cost for training and for every reply. Why a sample: after a
few MB the common pairs are known. It is drawn evenly over each source by a hash of the text, so that it does not depend
on order and is the same on every machine. Characters per token are measured on held-out text: what a token is worth.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from duihua import console
from duihua.data.records import Split, record_text
from duihua.data.source import Source, SourceConfig, open_source, refuse_as_text
from duihua.errors import DataError
from duihua.files import write_json
from duihua.stages.configs.tokenizer import TokenizerConfig
from duihua.stages.context import StageContext, StageResult
from duihua.stages.left_out import say_left_out
from duihua.text.characters import CharacterVocabulary
from duihua.text.token_view import EXAMPLES, token_costs, token_view
from duihua.text.tokenizer import Tokenizer
from duihua.text.vocabulary import Vocabulary
from duihua.text.words import WordVocabulary

LANGUAGES = ("en", "zh")
MEGABYTE = 1_000_000
VIEW_FILE = "token_view.json"
VIEW_BYTES = MEGABYTE // 4
"""Text of each language that the vocabularies of characters and words are learnt from, for the view: jieba needs seconds for a
megabyte, and more text changes little of what is seen."""


def run(config: TokenizerConfig, context: StageContext) -> StageResult:
    """Train a tokenizer on `config.sources` and save it in the stage's directory; needs no input.

    Metrics: characters_per_token {en, zh} on held-out text (null where there is none), vocabulary_size, sample_bytes,
    heldout_bytes, seconds. Raises DataError for an empty corpus, ConfigError for a vocabulary larger than the data
    allows.
    """
    started = time.monotonic()
    sources = [open_source(source, context.data_directory) for source in config.sources]
    for source in sources:
        if source.kind in ("labelled", "choices"):  # what tests a classifier must not shape its vocabulary
            refuse_as_text(source, "tokenizer.sources")
    sample = draw_sample(sources, config.sources, "train", config.megabytes, config.read_megabytes)
    sample_bytes = {language: _size(texts) for language, texts in sample.items()}
    if not any(sample_bytes.values()):
        raise DataError(
            "the sources hold no text to train on",
            where="tokenizer.sources",
            remedy="Look at them with `duihua data check`",
        )
    left_out = {source.name: source.left_out.to_mapping() for source in sources}
    for source in sources:
        say_left_out("tokenizer", source.name, source.left_out.counts)
    console.say(
        f"tokenizer: {config.vocabulary_size:,} ids from "
        + ", ".join(f"{size / MEGABYTE:.2f} MB {language}" for language, size in sample_bytes.items())
    )
    tokenizer = Tokenizer.train((text for texts in sample.values() for text in texts), config.vocabulary_size)
    tokenizer.save(context.directory)
    heldout = draw_sample(sources, config.sources, "heldout", config.heldout_megabytes, config.read_megabytes)
    view = compared_view(tokenizer, sample, heldout)
    write_json(context.directory / VIEW_FILE, view)
    metrics: dict[str, Any] = {
        "characters_per_token": {name: characters_per_token(tokenizer, texts) for name, texts in heldout.items()},
        "vocabulary_size": tokenizer.vocabulary_size,
        "sample_bytes": sample_bytes,
        "heldout_bytes": {language: _size(texts) for language, texts in heldout.items()},
        "seconds": time.monotonic() - started,
        "left_out": left_out,
        "terms": [{"name": source.name, "language": source.language, **asdict(source.terms)} for source in sources],
    }
    result = StageResult(context.directory, metrics)
    result.save(context.directory)
    return result


def compared_view(
    tokenizer: Tokenizer, sample: Mapping[str, Sequence[str]], heldout: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """The example sentences under the tokenizer and under vocabularies of characters and words of at most its size, learnt
    from the same sample (`text/token_view.py`), with what each costs on the held-out text under "heldout".
    """
    texts = [text for found in sample.values() for text in _first_bytes(((0.0, text) for text in found), VIEW_BYTES)]
    size = tokenizer.vocabulary_size
    vocabularies: dict[str, Vocabulary] = {
        "bytes": tokenizer,
        "characters": CharacterVocabulary.train(texts, size),
        "words": WordVocabulary.train(texts, size, "marks"),
        "words-jieba": WordVocabulary.train(texts, size, "jieba"),
    }
    costs = {
        name: {language: token_costs(_first(found), vocabulary) for language, found in heldout.items()}
        for name, vocabulary in vocabularies.items()
    }
    return token_view(EXAMPLES, vocabularies) | {"heldout": costs}


def _first(texts: Sequence[str]) -> list[str]:
    """Texts until a tenth of a megabyte: enough for a share in per cent."""
    return _first_bytes(((0.0, text) for text in texts), MEGABYTE / 10)


def draw_sample(
    sources: Sequence[Source], configs: Sequence[SourceConfig], split: Split, megabytes: float, read_megabytes: float
) -> dict[str, list[str]]:
    """Texts for each language, about `megabytes` MB each, out of the first `read_megabytes` MB of each source.

    Each text has a number u in (0, 1] from its hash; those with the smallest -ln(u) / weight are taken, which is
    drawing without replacement with the given weights (Efraimidis and Spirakis 2006). Empty texts and sources of weight
    0 are not taken. The order is that of the draw.
    """
    drawn: dict[str, list[tuple[float, str]]] = {language: [] for language in LANGUAGES}
    for source, config in zip(sources, configs, strict=True):
        if config.weight == 0:
            continue
        room = read_megabytes * MEGABYTE
        for record in source.records(split):
            text = record_text(record)
            size = len(text.encode("utf-8", "replace"))
            if size == 0:
                continue
            drawn.setdefault(record.language, []).append((-math.log(_uniform(text)) / config.weight, text))
            room -= size
            if room <= 0:
                break
    return {language: _first_bytes(sorted(texts), megabytes * MEGABYTE) for language, texts in drawn.items()}


def characters_per_token(tokenizer: Tokenizer, texts: Sequence[str]) -> float | None:
    """Characters of all texts over their tokens; None where there is no text."""
    characters = sum(map(len, texts))
    tokens = sum(len(ids) for ids in tokenizer.encode_batch(texts))
    return characters / tokens if tokens else None


def _uniform(text: str) -> float:
    """A number in (0, 1] that depends on the text alone."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest, "big") + 1) / 2**64


def _first_bytes(ordered: Iterable[tuple[float, str]], limit: float) -> list[str]:
    """Texts until `limit` bytes are reached; the last one is cut, so that one long book does not tip the balance."""
    taken: list[str] = []
    room = int(limit)
    for _, text in ordered:
        if room <= 0:
            break
        encoded = text.encode("utf-8", "replace")
        taken.append(text if len(encoded) <= room else encoded[:room].decode("utf-8", "ignore"))
        room -= len(encoded)
    return taken


def _size(texts: Sequence[str]) -> int:
    return sum(len(text.encode("utf-8", "replace")) for text in texts)
