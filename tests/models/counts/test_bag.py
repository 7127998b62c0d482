"""Bags of words: order is gone, the figures are scikit-learn's, and the nearest text is found."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB

from duihua.errors import BundleError, DataError
from duihua.models.counts.bag import BagOfWords, Collection
from duihua.models.counts.bag_bundle import is_bag, load_bag, save_bag
from duihua.models.counts.bag_classifier import BagClassifier
from duihua.models.model_card import ModelCard
from duihua.text.words import WordVocabulary, cut

TEXTS = [
    "The dog bites the man, and the man bites the dog.",
    "A cat sat on the mat; the mat was the cat's.",
    "Graphics cards draw triangles. Triangles are drawn by cards!",
    "I don't know what the doctor said about the dog",
    "Doctors and nurses know what medicine the man needs, needs, needs.",
    "",
    "triangles",
]
LABELS = ["animals", "animals", "graphics", "animals", "medicine", "medicine", "graphics"]


@pytest.fixture(scope="module")
def vocabulary() -> WordVocabulary:
    return WordVocabulary.train(TEXTS, 0, "marks", lowercase=True)


def sklearn_words(text: str) -> list[str]:
    return cut(text, "marks", lowercase=True)


def peer(kind: type, vocabulary: WordVocabulary, **more: object) -> CountVectorizer:
    settings = {"tokenizer": sklearn_words, "token_pattern": None, "lowercase": False, "vocabulary": vocabulary.words}
    return kind(**settings, **more)


def test_counts_and_tf_idf_are_those_of_scikit_learn(vocabulary: WordVocabulary) -> None:
    counts = peer(CountVectorizer, vocabulary).fit_transform(TEXTS)
    ours = BagOfWords(vocabulary).vectors(TEXTS)
    assert (ours.toarray() == counts.toarray()).all()
    bag = BagOfWords.fit(vocabulary, TEXTS)
    weighted = bag.vectors(TEXTS).toarray()
    vectorizer = peer(TfidfVectorizer, vocabulary)
    assert np.abs(weighted - vectorizer.fit_transform(TEXTS).toarray()).max() < 1e-12
    assert np.abs(weighted - TfidfTransformer().fit_transform(counts).toarray()).max() < 1e-12
    assert bag.idf is not None
    assert np.abs(bag.idf - vectorizer.idf_).max() < 1e-12
    unseen = ["the dog and an unseen word", "nothing known"]
    assert np.abs(bag.vectors(unseen).toarray() - vectorizer.transform(unseen).toarray()).max() < 1e-12
    unsmoothed = peer(TfidfVectorizer, vocabulary, smooth_idf=False).fit_transform(TEXTS[:5]).toarray()  # control
    assert (
        np.abs(BagOfWords.fit(vocabulary, TEXTS[:5]).vectors(TEXTS[:5]).toarray()[:, :9] - unsmoothed[:, :9]).max()
        > 1e-3
    )


def test_a_tf_idf_worked_by_hand() -> None:
    vocabulary = WordVocabulary(["a", "b"])
    bag = BagOfWords.fit(vocabulary, ["a a b", "a"])
    assert bag.idf is not None
    assert bag.idf.tolist() == pytest.approx([1.0, np.log(3 / 2) + 1])
    vector = np.array([2 * 1.0, 1 * (np.log(3 / 2) + 1)])
    assert bag.vectors(["a a b"]).toarray()[0] == pytest.approx(vector / np.linalg.norm(vector))


def bigram_counts(text: str) -> dict[tuple[str, str], int]:
    words = text.split()
    found: dict[tuple[str, str], int] = {}
    for pair in pairwise(words):
        found[pair] = found.get(pair, 0) + 1
    return found


def test_shuffling_leaves_the_vector_identical_and_one_of_pairs_changes() -> None:
    before = "a model that knows no order reads a shuffled text as the same text that it was before"
    shuffled = before.split()
    random.Random(4).shuffle(shuffled)
    after = " ".join(shuffled)
    assert before != after
    vocabulary = WordVocabulary.train([before])
    for bag in (BagOfWords(vocabulary), BagOfWords.fit(vocabulary, [before, "a text", "order"])):
        one, other = bag.vectors([before]), bag.vectors([after])
        assert one.data.tobytes() == other.data.tobytes()
        assert one.indices.tobytes() == other.indices.tobytes()
    assert bigram_counts(before) != bigram_counts(after)


def test_search_gives_the_nearest_by_cosine(vocabulary: WordVocabulary) -> None:
    bag = BagOfWords.fit(vocabulary, TEXTS)
    found = Collection(bag, TEXTS).search("which triangles do graphics cards draw", 2)
    assert [hit.number for hit in found] == [2, 6]
    dense = bag.vectors(TEXTS).toarray() @ bag.vectors(["which triangles do graphics cards draw"]).toarray()[0]
    assert [hit.score for hit in found] == pytest.approx([dense[2], dense[6]])
    assert found[0].score > found[1].score > 0
    assert Collection(bag, TEXTS).search("unheard of", 3) == []
    counted = Collection(BagOfWords(vocabulary), TEXTS).search("triangles", 5)
    assert counted[0].number == 6
    assert counted[0].score == pytest.approx(1.0)


@pytest.mark.parametrize("weighting", ["counts", "tf-idf"])
def test_classifiers_answer_as_scikit_learn_does(vocabulary: WordVocabulary, weighting: str) -> None:
    bag = BagOfWords(vocabulary) if weighting == "counts" else BagOfWords.fit(vocabulary, TEXTS)
    for labels in (LABELS, ["graphics" if label == "graphics" else "other" for label in LABELS]):
        vectors = bag.vectors(TEXTS)
        bayes = BagClassifier.fit("naive-bayes", vectors, labels, pseudo_count=0.5)
        linear = BagClassifier.fit("linear", vectors, labels, regularisation=0.2)
        peers = [MultinomialNB(alpha=0.5), LogisticRegression(C=5.0, max_iter=1000)]
        for ours, theirs in zip((bayes, linear), peers, strict=True):
            theirs.fit(vectors, labels)
            assert np.abs(ours.probabilities(vectors) - theirs.predict_proba(vectors)).max() < 1e-9
            assert ours.predict(vectors) == theirs.predict(vectors).tolist()
            without_bias = BagClassifier(ours.weights, ours.bias + np.arange(len(ours.bias)), ours.classes)  # control
            assert np.abs(without_bias.probabilities(vectors) - theirs.predict_proba(vectors)).max() > 1e-3


def test_naive_bayes_by_hand() -> None:
    """One word a class, pseudo-count 1: P(a | A) = (3 + 1) / (3 + 2), prior 2/3."""
    vocabulary = WordVocabulary(["a", "b"])
    bag = BagOfWords(vocabulary)
    model = BagClassifier.fit("naive-bayes", bag.vectors(["a a", "a", "b"]), ["A", "A", "B"])
    joint_A, joint_B = 2 / 3 * 4 / 5, 1 / 3 * 1 / 3
    assert model.probabilities(bag.vectors(["a"]))[0].tolist() == pytest.approx(
        [joint_A / (joint_A + joint_B), joint_B / (joint_A + joint_B)]
    )


def test_telling_words_are_those_of_their_class(vocabulary: WordVocabulary) -> None:
    bag = BagOfWords.fit(vocabulary, TEXTS)
    model = BagClassifier.fit("linear", bag.vectors(TEXTS), LABELS)
    told = model.telling_words(vocabulary.words, 2)
    assert "triangles" in told["graphics"]
    assert told.keys() == set(LABELS)


def test_a_bundle_answers_as_before_and_a_broken_one_is_refused(vocabulary: WordVocabulary, tmp_path: Path) -> None:
    bag = BagOfWords.fit(vocabulary, TEXTS)
    model = BagClassifier.fit("linear", bag.vectors(TEXTS), LABELS)
    card = ModelCard("A bag", "bag_of_words", terms=[{"name": "own", "licence": "none"}])
    save_bag(tmp_path, bag, model, "linear", card)
    assert is_bag(tmp_path)
    found = load_bag(tmp_path)
    assert (found.classifier.probabilities(found.bag.vectors(TEXTS)) == model.probabilities(bag.vectors(TEXTS))).all()
    assert (found.kind, found.terms) == ("linear", [{"name": "own", "licence": "none"}])
    assert {file.suffix for file in tmp_path.iterdir()} <= {".json", ".safetensors", ".md"}
    whole = (tmp_path / "bag.safetensors").read_bytes()
    (tmp_path / "bag.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BundleError, match="broken arrays"):
        load_bag(tmp_path)
    (tmp_path / "bag.safetensors").write_bytes(whole)
    WordVocabulary(["one", "word"], "marks").save(tmp_path)
    with pytest.raises(BundleError, match="does not fit the vocabulary"):
        load_bag(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(BundleError, match=r"has no config\.json"):
        load_bag(tmp_path)


def test_nothing_to_learn_from_is_said() -> None:
    with pytest.raises(DataError, match="no text"):
        BagOfWords.fit(WordVocabulary(["a"]), [])
    bag = BagOfWords(WordVocabulary(["a"]))
    with pytest.raises(DataError, match="all examples are of one class, 'x'"):
        BagClassifier.fit("linear", bag.vectors(["a", "a"]), ["x", "x"])
    assert bag.vectors(["", "unknown"]).toarray().tolist() == [[0.0], [0.0]]
