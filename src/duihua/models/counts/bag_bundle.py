"""Bag-of-words bundles: a classifier over bags as a directory.

    config.json        model_type "duihua-bag-of-words", classes, weighting, kind, the terms of the data
    bag.safetensors    idf (of TF-IDF), weights, bias
    words.json         the vocabulary and how text is cut
    README.md          the model card

config.json is written last, so that half a bundle is never read as one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from duihua.errors import BundleError
from duihua.files import write_atomic, write_json
from duihua.models.counts.bag import BagOfWords
from duihua.models.counts.bag_classifier import BagClassifier, ClassifierKind
from duihua.models.counts.card import save_card
from duihua.models.model_card import ModelCard, origin
from duihua.models.weights import read_object
from duihua.text.words import WordVocabulary

MODEL_TYPE, FORMAT = "duihua-bag-of-words", 1
ARRAYS_FILE = "bag.safetensors"
Weighting = Literal["tf-idf", "counts"]


@dataclass(frozen=True)
class BagBundle:
    """A loaded classifier over bags of words. terms: of the data that it learnt from."""

    bag: BagOfWords
    classifier: BagClassifier
    kind: ClassifierKind
    directory: Path
    terms: list[dict[str, str]]


def is_bag(directory: str | Path) -> bool:
    """Whether the directory holds a classifier over bags of words."""
    path = Path(directory) / "config.json"
    return path.is_file() and read_object(path).get("model_type") == MODEL_TYPE


def save_bag(
    directory: Path, bag: BagOfWords, classifier: BagClassifier, kind: ClassifierKind, card: ModelCard
) -> None:
    """Write the classifier. Raises DuihuaError where it cannot."""
    directory = Path(directory)
    arrays = {"weights": classifier.weights, "bias": classifier.bias}
    weighting: Weighting = "counts"
    if bag.idf is not None:
        arrays["idf"], weighting = bag.idf, "tf-idf"
    (directory / "config.json").unlink(missing_ok=True)
    write_atomic(directory / ARRAYS_FILE, save(arrays))
    bag.vocabulary.save(directory)
    shape = {
        "kind": kind,
        "weighting": weighting,
        "segmentation": bag.vocabulary.segmentation,
        "words": bag.columns,
    }
    save_card(directory, card, parameters=classifier.weights.size + classifier.bias.size, shape=shape)
    write_json(
        directory / "config.json",
        {
            "model_type": MODEL_TYPE,
            **shape,
            "classes": list(classifier.classes),
            "duihua": origin(card, FORMAT),
        },
    )


def load_bag(directory: str | Path) -> BagBundle:
    """Read what `save_bag` wrote. Raises BundleError for whatever is missing, broken or of another kind."""
    directory = Path(directory)
    config = read_object(directory / "config.json")
    where = str(directory / "config.json")
    if config.get("model_type") != MODEL_TYPE:
        raise BundleError(
            f"is a {config.get('model_type') or 'model of unknown type'}, not a bag of words",
            where=where,
            remedy="Make one: duihua bag_of_words --output DIR",
        )
    ours = config.get("duihua")
    if not isinstance(ours, dict) or ours.get("format") != FORMAT:
        raise BundleError(
            f"a bag of words of a format other than {FORMAT}",
            where=where,
            remedy="Use the duihua that wrote it, or train again",
        )
    kind, classes, weighting = config.get("kind"), config.get("classes"), config.get("weighting")
    if kind not in ("linear", "naive-bayes") or not isinstance(classes, list) or weighting not in ("tf-idf", "counts"):
        raise BundleError("broken settings: kind, classes or weighting", where=where, remedy="Train again")
    vocabulary = WordVocabulary.load(directory)
    path = directory / ARRAYS_FILE
    remedy = "Copy the file again, or train again"
    try:
        arrays = load_file(path)
        idf = arrays["idf"] if weighting == "tf-idf" else None
        classifier = BagClassifier(arrays["weights"], arrays["bias"], [str(name) for name in classes])
        for name, array in arrays.items():
            if array.dtype != np.float64 or (name != "bias" and array.shape[-1] != len(vocabulary.words)):
                raise ValueError(f"{name} does not fit the vocabulary")
    except FileNotFoundError as error:
        raise BundleError(f"has no {path.name}", where=str(directory), remedy=remedy) from error
    except KeyError as error:
        raise BundleError(f"lacks {error.args[0]}", where=str(path), remedy=remedy) from error
    except (SafetensorError, ValueError, OSError) as error:
        raise BundleError(f"broken arrays: {error}", where=str(path), remedy=remedy) from error
    return BagBundle(
        BagOfWords(vocabulary, idf), classifier, cast(ClassifierKind, kind), directory, ours.get("terms", [])
    )
