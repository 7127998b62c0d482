"""The stages without a network: n-grams and bags of words, run whole on small files."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duihua.data.source import SourceConfig, open_source
from duihua.errors import ConfigError, DataError
from duihua.models.counts.bag_bundle import load_bag
from duihua.models.counts.ngram_bundle import load_ngram
from duihua.stages import bag_of_words, ngram
from duihua.stages.bag_of_words import draw
from duihua.stages.configs.bag_of_words import BagOfWordsConfig
from duihua.stages.configs.ngram import NGramConfig
from duihua.stages.context import StageContext, StageResult
from duihua.text.tokenizer import Tokenizer

ANIMALS, VERBS, PLACES = ("cat", "dog", "bird", "fish"), ("sings", "sleeps", "runs"), ("home", "town", "garden")


def write(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def text(tmp_path: Path) -> SourceConfig:
    rows = [
        {"text": f"The {ANIMALS[i % 4]} {VERBS[i % 3]} in the {PLACES[(i // 5) % 3]}, and number {i} is quiet."}
        for i in range(400)
    ]
    return SourceConfig(path=write(tmp_path / "text.jsonl", rows), kind="text", language="en")


def count(text: SourceConfig, directory: Path, inputs: dict[str, Path] | None = None, **changes: Any) -> StageResult:
    config = NGramConfig(**({"sources": (text,), "sample_tokens": 12} | changes))
    return ngram.run(config, StageContext(directory, inputs or {}, directory / "data"))


def test_more_context_lowers_the_perplexity_which_is_that_of_the_bundle(text: SourceConfig, tmp_path: Path) -> None:
    result = count(text, tmp_path / "run", order=3)
    metrics = result.metrics
    values = [metrics["orders"][str(order)]["perplexity"]["all"]["value"] for order in (1, 2, 3)]
    assert values[0] > 5 * max(values[1:])
    bundle = load_ngram(tmp_path / "run")
    heldout = [record.text for record in open_source(text, tmp_path).records("heldout")]  # type: ignore[union-attr]
    end = bundle.vocabulary.end_of_text_id
    logs = np.concatenate([bundle.model.log_probabilities([end, *bundle.vocabulary.encode(text)]) for text in heldout])
    assert metrics["perplexity"]["all"] == pytest.approx(math.exp(-logs.mean()))
    assert metrics["heldout_tokens"] == len(logs)
    assert metrics["unknown_share"] > 0  # numbers that the training part does not hold
    assert "bits_per_byte" not in metrics
    bits = -logs.sum() / math.log(2) / sum(len(text.encode()) for text in heldout)
    assert metrics["bits_per_byte_at_least"]["all"] == pytest.approx(bits)
    assert len(metrics["samples"]) == 4
    assert StageResult.load(tmp_path / "run") == result


def test_tokens_and_characters_have_bits_per_byte(text: SourceConfig, tmp_path: Path) -> None:
    texts = [record.text for record in open_source(text, tmp_path).records("train")]  # type: ignore[union-attr]
    Tokenizer.train(texts, 300).save(tmp_path / "tokenizer")
    tokens = count(text, tmp_path / "tokens", {"tokenizer": tmp_path / "tokenizer"}).metrics
    characters = count(text, tmp_path / "characters", vocabulary="characters", order=5).metrics
    assert (tokens["vocabulary"], characters["vocabulary"]) == ("tokens", "characters")
    assert 0 < tokens["bits_per_byte"]["all"] < 1
    assert 0 < characters["bits_per_byte"]["all"] < 1.5
    with pytest.raises(ConfigError, match="there is no tokenizer"):
        count(text, tmp_path / "none", vocabulary="tokenizer")


def test_every_setting_of_counting_reaches_the_model(text: SourceConfig, tmp_path: Path) -> None:
    fixed = count(text, tmp_path / "a", order=2, smoothing="absolute", discount=0.5, lower_orders=False, samples=0)
    assert [each["values"] for each in fixed.metrics["discounts"]] == [[0.5] * 3] * 2
    assert list(fixed.metrics["orders"]) == ["2"]
    assert fixed.metrics["samples"] == []
    assert load_ngram(tmp_path / "a").model.smoothing == "absolute"
    small = count(text, tmp_path / "b", order=1, vocabulary_size=10, lowercase=True, segmentation="spaces")
    assert small.metrics["vocabulary_size"] == 10
    assert small.metrics["vocabulary"] == "words (spaces)"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"order": 0}, "at least 1"),
        ({"smoothing": "none"}, "without smoothing"),
        ({"discount": 1.0}, "below 1"),
        ({"vocabulary_size": 2}, "no room"),
        ({"sources": ()}, "no source"),
        ({"samples": -1}, "negative"),
    ],
)
def test_impossible_settings_of_counting_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NGramConfig(**wrong)


# -- bags of words ------------------------------------------------------------------------------------------------------


def examples(count: int, shift: int = 0) -> list[dict[str, Any]]:
    """The label is told by the animal; the rest is noise, and one in ten is labelled wrongly."""
    made = []
    for i in range(shift, shift + count):
        animal = ANIMALS[(i * 7) % 4]
        label = "furry" if animal in ("cat", "dog") else "not furry"
        if i % 10 == 9:
            label = "furry" if label == "not furry" else "not furry"
        made.append({"text": f"{i} {VERBS[i % 3]} {PLACES[i % 3]}, the {animal} {VERBS[(i // 3) % 3]}", "label": label})
    return made


@pytest.fixture
def labelled(tmp_path: Path) -> SourceConfig:
    return SourceConfig(
        path=write(tmp_path / "train.jsonl", examples(300)),
        heldout=write(tmp_path / "test.jsonl", examples(120, shift=300)),
        kind="labelled",
        language="en",
    )


@pytest.mark.parametrize("classifier", ["linear", "naive-bayes"])
@pytest.mark.parametrize("weighting", ["counts", "tf-idf"])
def test_a_bag_learns_what_one_word_tells(
    labelled: SourceConfig, tmp_path: Path, classifier: Any, weighting: Any
) -> None:
    config = BagOfWordsConfig(source=labelled, classifier=classifier, weighting=weighting)
    result = bag_of_words.run(config, StageContext(tmp_path / "run", {}, tmp_path))
    metrics = result.metrics
    assert metrics["accuracy"]["value"] > 0.85
    assert metrics["accuracy"]["low"] > metrics["baseline"]["accuracy"]["value"]
    assert metrics["telling_words"]["furry"][0] in ("cat", "dog")
    bundle = load_bag(tmp_path / "run")
    assert bundle.classifier.predict(bundle.bag.vectors(["a Dog", "the bird"])) == ["furry", "not furry"]
    assert metrics["mistakes"]
    assert StageResult.load(tmp_path / "run") == result


def test_labels_that_no_word_tells_are_not_learnt(tmp_path: Path) -> None:
    """The control: the same texts with labels by chance give the majority's accuracy, or less."""
    rows = examples(400)
    for i, row in enumerate(rows):
        row["label"] = "furry" if (i * 2654435761) % 1000 < 500 else "not furry"
    source = SourceConfig(
        path=write(tmp_path / "train.jsonl", rows[:280]),
        heldout=write(tmp_path / "test.jsonl", rows[280:]),
        kind="labelled",
    )
    metrics = bag_of_words.run(BagOfWordsConfig(source=source), StageContext(tmp_path / "run", {}, tmp_path)).metrics
    assert metrics["accuracy"]["low"] < metrics["baseline"]["accuracy"]["value"]


def test_what_a_bag_leaves_out_of_each_part_is_said_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two broken rows in training, three held out; and nothing is said of a part that has none."""
    broken: list[dict[str, Any]] = [{"text": "", "label": "furry"}, {"text": "a cat"}, {"text": " ", "label": "furry"}]
    source = SourceConfig(
        path=write(tmp_path / "train.jsonl", [*examples(60), *broken[:2]]),
        heldout=write(tmp_path / "test.jsonl", [*examples(20, shift=60), *broken]),
        kind="labelled",
        language="en",
    )
    metrics = bag_of_words.run(BagOfWordsConfig(source=source), StageContext(tmp_path / "run", {}, tmp_path)).metrics
    counted = {part: {reason: one["count"] for reason, one in metrics["left_out"][part]["reasons"].items()} for part in
               ("train", "heldout")}  # fmt: skip
    assert counted["train"]["empty text"] == 1 and sum(counted["train"].values()) == 2
    assert counted["heldout"]["empty text"] == 2 and sum(counted["heldout"].values()) == 3
    said = [line for line in "".join(capsys.readouterr()).splitlines() if "left out of" in line]
    assert any("heldout: 2 x empty text" in line for line in said) and any("train: 1 x empty" in line for line in said)
    whole = dataclasses.replace(source, heldout=write(tmp_path / "whole.jsonl", examples(20, shift=60)))
    bag_of_words.run(BagOfWordsConfig(source=whole), StageContext(tmp_path / "other", {}, tmp_path))
    assert "heldout: " not in "".join(capsys.readouterr())


def test_seeds_draw_other_examples_and_give_an_interval(labelled: SourceConfig, tmp_path: Path) -> None:
    config = BagOfWordsConfig(source=labelled, limit=8, seeds=3)
    metrics = bag_of_words.run(config, StageContext(tmp_path / "run", {}, tmp_path)).metrics
    assert metrics["trained_on"] == 8
    assert metrics["over_seeds"]["accuracy"]["n"] == 3
    assert metrics["over_seeds"]["accuracy"]["low"] < metrics["over_seeds"]["accuracy"]["high"]
    records = list(open_source(labelled, tmp_path).records("train"))
    limited = list(open_source(dataclasses.replace(labelled, limit=40), tmp_path).records("train"))
    assert draw(records, 40, 0) == limited  # as the classify stage draws them
    assert draw(records, 40, 1) != limited
    assert draw(records, 0, 1) == records
    with pytest.raises(ConfigError, match="every run is the same"):
        BagOfWordsConfig(seeds=3)


def test_what_a_bag_cannot_learn_from_is_said(labelled: SourceConfig, text: SourceConfig, tmp_path: Path) -> None:
    context = StageContext(tmp_path / "run", {}, tmp_path)
    with pytest.raises(ConfigError, match=r"bag_of_words\.source: the task classification needs labelled"):
        bag_of_words.run(BagOfWordsConfig(source=text), context)
    with pytest.raises(ConfigError, match=r"bag_of_words\.positive_class: there is no class 'x'"):
        bag_of_words.run(BagOfWordsConfig(source=labelled, positive_class="x"), context)
    other = write(tmp_path / "other.jsonl", [{"text": "a cat", "label": "reptile"}])
    with pytest.raises(DataError, match="classes that the training part lacks: 'reptile'"):
        bag_of_words.run(BagOfWordsConfig(source=dataclasses.replace(labelled, heldout=other)), context)
