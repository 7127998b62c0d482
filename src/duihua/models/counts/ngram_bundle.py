"""n-gram bundles: a model of counts as a directory.

    config.json          model_type "duihua-ngram", order, smoothing, the discounts of each order, the terms of the data
    ngram.safetensors    codes and counts of each order, int64: exactly what was counted
    tokenizer.json, words.json or characters.json      its vocabulary
    README.md            the model card

config.json is written last, so that half a bundle is never read as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from duihua.errors import BundleError
from duihua.files import require_space, write_atomic, write_json
from duihua.models.counts.card import save_card
from duihua.models.counts.discounts import Discounts
from duihua.models.counts.ngram import Ids, NGram, Order, Smoothing
from duihua.models.model_card import ModelCard, origin
from duihua.models.weights import read_object
from duihua.text.vocabulary import Vocabulary, load_vocabulary

MODEL_TYPE, FORMAT = "duihua-ngram", 1
COUNTS_FILE = "ngram.safetensors"


@dataclass(frozen=True)
class NGramBundle:
    """A loaded n-gram model with its vocabulary. terms: of the data that was counted."""

    model: NGram
    vocabulary: Vocabulary
    directory: Path
    terms: list[dict[str, str]]


def is_ngram(directory: str | Path) -> bool:
    """Whether the directory holds an n-gram model."""
    path = Path(directory) / "config.json"
    return path.is_file() and read_object(path).get("model_type") == MODEL_TYPE


def save_ngram(directory: Path, model: NGram, vocabulary: Vocabulary, card: ModelCard) -> None:
    """Write the model. Raises DuihuaError where it cannot."""
    directory = Path(directory)
    arrays: dict[str, Ids] = {}
    for k, order in enumerate(model.orders, start=1):
        arrays |= {f"codes.{k}": order.codes, f"counts.{k}": order.counts}
    require_space(directory, sum(array.nbytes for array in arrays.values()) + (4 << 20))
    (directory / "config.json").unlink(missing_ok=True)
    write_atomic(directory / COUNTS_FILE, save(arrays))
    vocabulary.save(directory)
    shape = {
        "order": model.order,
        "smoothing": model.smoothing,
        "vocabulary_size": model.vocabulary_size,
        "separator": model.separator,
    }
    ngrams = {f"{k}-grams": len(order.codes) for k, order in enumerate(model.orders, start=1)}
    save_card(directory, card, parameters=sum(ngrams.values()), shape=shape | ngrams)
    write_json(
        directory / "config.json",
        {
            "model_type": MODEL_TYPE,
            **shape,
            "discounts": [order.discounts.to_mapping() for order in model.orders],
            "duihua": origin(card, FORMAT),
        },
    )


def load_ngram(directory: str | Path) -> NGramBundle:
    """Read what `save_ngram` wrote. Raises BundleError for whatever is missing, broken or of another kind."""
    directory = Path(directory)
    config = read_object(directory / "config.json")
    where = str(directory / "config.json")
    ours = config.get("duihua", {})
    if config.get("model_type") != MODEL_TYPE:
        raise BundleError(
            f"is a {config.get('model_type') or 'model of unknown type'}, not an n-gram model",
            where=where,
            remedy="Make one: duihua ngram --output DIR",
        )
    if not isinstance(ours, dict) or ours.get("format") != FORMAT:
        raise BundleError(
            f"an n-gram model of a format other than {FORMAT}",
            where=where,
            remedy="Use the duihua that wrote it, or count again",
        )
    try:
        order, size, separator = (int(config[key]) for key in ("order", "vocabulary_size", "separator"))
        smoothing = config["smoothing"]
        discounts = [Discounts(_three(each["values"]), str(each["origin"])) for each in config["discounts"]]
        if smoothing not in ("kneser-ney", "absolute", "none") or len(discounts) != order or order < 1:
            raise ValueError("order, smoothing and discounts do not fit each other")
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"broken settings: {error}", where=where, remedy="Count again") from error
    model = NGram(size, separator, cast(Smoothing, smoothing), _orders(directory / COUNTS_FILE, size, discounts))
    vocabulary = load_vocabulary(directory)
    if vocabulary.vocabulary_size != size:
        raise BundleError(
            f"the vocabulary has {vocabulary.vocabulary_size} ids, the counts are of {size}",
            where=str(directory),
            remedy="Copy the vocabulary that the model was counted with",
        )
    return NGramBundle(model, vocabulary, directory, ours.get("terms", []))


def _three(values: Any) -> tuple[float, float, float]:
    one, two, three = (float(value) for value in values)
    return one, two, three


def _orders(path: Path, size: int, discounts: Sequence[Discounts]) -> list[Order]:
    """The stored arrays, checked: sorted codes whose contexts are there, and a count for each."""
    remedy = "Copy the file again, or count again"
    try:
        arrays = load_file(path)
        orders: list[Order] = []
        contexts = 1
        for k, found in enumerate(discounts, start=1):
            codes, counts = arrays[f"codes.{k}"], arrays[f"counts.{k}"]
            whole = codes.dtype == counts.dtype == np.int64 and codes.shape == counts.shape and codes.ndim == 1
            if not whole or not len(codes) or codes[0] < 0 or codes[-1] >= contexts * size or counts.min() < 0:
                raise ValueError(f"the {k}-grams are not what was written")
            if np.any(np.diff(codes) <= 0):
                raise ValueError(f"the {k}-grams are out of order")
            orders.append(Order(codes, counts, contexts, found))
            contexts = len(codes)
    except FileNotFoundError as error:
        raise BundleError(f"has no {path.name}", where=str(path.parent), remedy=remedy) from error
    except KeyError as error:
        raise BundleError(f"lacks {error.args[0]}", where=str(path), remedy=remedy) from error
    except (SafetensorError, ValueError, OSError) as error:
        raise BundleError(f"broken counts: {error}", where=str(path), remedy=remedy) from error
    return orders
