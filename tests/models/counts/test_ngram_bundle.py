"""n-gram bundles: what is read scores as what was written, and what is broken is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from duihua.errors import BundleError
from duihua.models.counts.ngram import NGram
from duihua.models.counts.ngram_bundle import is_ngram, load_ngram, save_ngram
from duihua.models.model_card import ModelCard
from duihua.text.words import WordVocabulary

TEXT = "the cat sat on the mat and the dog sat on the cat and the mat sat on the dog"
CARD = ModelCard("Counts", "ngram", terms=[{"name": "own", "licence": "none"}])


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    vocabulary = WordVocabulary.train([TEXT])
    end = vocabulary.end_of_text_id
    model = NGram.fit([[*vocabulary.encode(TEXT), end]] * 2, 3, vocabulary.vocabulary_size, end)
    save_ngram(tmp_path / "model", model, vocabulary, CARD)
    return tmp_path / "model"


def test_a_bundle_scores_and_writes_as_the_model_did(bundle: Path) -> None:
    vocabulary = WordVocabulary.train([TEXT])
    end = vocabulary.end_of_text_id
    model = NGram.fit([[*vocabulary.encode(TEXT), end]] * 2, 3, vocabulary.vocabulary_size, end)
    found = load_ngram(bundle)
    ids = [end, *vocabulary.encode("the dog sat on the unheard mat"), end]
    assert found.vocabulary.encode(TEXT) == vocabulary.encode(TEXT)
    assert (found.model.log_probabilities(ids) == model.log_probabilities(ids)).all()
    assert found.model.generate(tokens=30, seed=5) == model.generate(tokens=30, seed=5)
    assert found.terms == [{"name": "own", "licence": "none"}]
    assert is_ngram(bundle)
    assert not is_ngram(bundle.parent)
    assert {file.suffix for file in bundle.iterdir()} == {".json", ".safetensors", ".md"}
    other = NGram.fit([vocabulary.encode(TEXT)[::-1]], 3, vocabulary.vocabulary_size, end)  # control
    assert (found.model.log_probabilities(ids) != other.log_probabilities(ids)).any()


def change_config(name: str, value: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config[name] = value
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")

    return change


def change_arrays(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        arrays = load_file(folder / "ngram.safetensors")
        arrays[name] = np.ascontiguousarray(change(arrays[name]))
        save_file(arrays, folder / "ngram.safetensors")

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change_config("model_type", "gpt2"), "is a gpt2, not an n-gram model"),
        (change_config("order", 4), "do not fit each other"),
        (change_config("smoothing", "laplace"), "do not fit each other"),
        (change_config("duihua", {"format": 9}), "format other than 1"),
        (change_config("separator", "x"), "broken settings"),
        (change_arrays("codes.2", lambda codes: codes[::-1]), "out of order"),
        (change_arrays("codes.3", lambda codes: codes + 10**9), "3-grams are not what was written"),
        (change_arrays("counts.1", lambda counts: counts[:-1]), "1-grams are not what was written"),
        (lambda folder: (folder / "ngram.safetensors").unlink(), "has no ngram.safetensors"),
        (lambda folder: (folder / "ngram.safetensors").write_bytes(b"\x05"), "broken counts"),
        (lambda folder: (folder / "words.json").unlink(), "no vocabulary"),
        (lambda folder: WordVocabulary(["a"]).save(folder), "the vocabulary has 3 ids"),
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
    ],
)
def test_a_broken_bundle_is_refused(bundle: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(bundle)
    with pytest.raises(BundleError) as refused:
        load_ngram(bundle)
    assert message in str(refused.value)
