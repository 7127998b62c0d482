"""starter-text holds no text that a classifier is tested on, and the race text shows that the same check would tell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from duihua.data.home import data_directory
from duihua.data.labelled import starter_text
from duihua.data.labelled.starter_text import StarterText, held_out_texts
from duihua.data.leakage import HeldOutTexts
from duihua.data.records import Document, Record, Split, hash_order, normalised
from duihua.data.source import SourceConfig, open_source
from duihua.data.starter.race import RaceText
from duihua.errors import DataError

HOME = data_directory()
QUOTED = "the cure of the nose is known by now"  # a test post of the tiny archive


class TinyRace:
    """In the place of the race text, whose bytes are fixed."""

    name, reader_version = "race-text", 1

    def __init__(self, _: Path) -> None: ...

    def records(self, split: Split) -> Iterator[Record]:
        if split == "heldout":
            yield Document("A held-out article.", "wiki", "en")
        else:
            yield Document("An article.", "wiki", "en")
            yield Document(f"A talk.\nHave you heard? {QUOTED.capitalize()}, he wrote.", "chat", "en")
            yield Document("好书\n很好\n喜欢", "review", "zh")


@pytest.fixture
def source(labelled_home: Path, monkeypatch: pytest.MonkeyPatch) -> StarterText:
    monkeypatch.setattr(starter_text, "RaceText", TinyRace)
    return StarterText(labelled_home)


def documents(source: StarterText, split: Split) -> list[Document]:
    return [record for record in source.records(split) if isinstance(record, Document)]


def test_it_holds_the_race_text_without_reviews_and_the_training_texts_one_by_one(source: StarterText) -> None:
    everything = [*documents(source, "train"), *documents(source, "heldout")]
    parts = {document.source for document in everything}
    assert parts == {"wiki", "review", "newsgroup"}
    assert Document("A held-out article.", "wiki", "en") in documents(source, "heldout")
    assert not any("\n" in document.text for document in everything if document.source == "review")
    reviews = open_source(SourceConfig(name="reviews-zh"), source.data_directory)
    trained = {record.texts[0] for record in reviews.records("train")}  # type: ignore[union-attr]
    assert {document.text for document in everything if document.source == "review"} == trained
    assert sum(document.source == "newsgroup" for document in everything) == 7


def test_a_document_that_quotes_a_test_text_is_left_out_and_counted(source: StarterText) -> None:
    everything = [*documents(source, "train"), *documents(source, "heldout")]
    assert not any(normalised(QUOTED) in normalised(document.text) for document in everything)
    assert dict(source.left_out.counts) == {"chat: holds a held-out text of newsgroups": 1}
    held_out = held_out_texts(source.data_directory)
    assert len(held_out) >= 3
    assert not any(held_out.occurrence(document.text) for document in everything)
    race = [record for record in TinyRace(source.data_directory).records("train") if isinstance(record, Document)]
    leaks = [number for number, document in enumerate(race) if held_out.occurrence(document.text)]
    assert leaks == [1]  # the control: the check does tell


def test_the_split_is_by_a_hash_of_its_own(source: StarterText) -> None:
    for document in documents(source, "train"):
        if document.source in ("review", "newsgroup"):
            assert hash_order(document, "language model") >= 0.05 * 2**64


needs_built = pytest.mark.skipif(
    not list((HOME / "built").glob("starter-text-*")),
    reason=f"starter-text is not built in {HOME}: `duihua data get starter-text`",
)


def built() -> StarterText:
    try:
        return StarterText(HOME)
    except DataError as error:
        pytest.skip(str(error))


@pytest.mark.slow
@needs_built
def test_real_text_holds_no_test_text_and_the_race_text_holds_many() -> None:
    """By another way than the one that it was made with: equality of whole texts, and a plain search for a sample."""
    source = built()
    trained = documents(source, "train")
    assert (len(trained), len(documents(source, "heldout"))) == tuple(source.counts)
    held_out = held_out_texts(HOME)
    tested = {normalised(text) for _, text in held_out.texts}
    assert len(tested) > 10_000
    lines: set[str] = set()
    texts: list[str] = []
    for document in trained:
        read = [normalised(line) for line in document.text.split("\n")]
        texts.append("".join(read))
        lines.update(read, texts[-1:])
    assert [text for text in tested & lines if len(text) >= 16] == []
    everything = "\n".join(texts)
    sample = sorted((text for text in tested if len(text) >= 16), key=lambda text: hash_order(Document(text, "", "")))
    assert not [text for text in sample[:60] if text in everything]
    race = (record for record in RaceText(HOME).records("train") if isinstance(record, Document))
    reviews = [document for document in race if document.source == "review"]
    race_lines = {normalised(line) for document in reviews for line in document.text.split("\n")}
    assert len(tested & race_lines) > 1_000  # the reviews: why this text exists
    few = HeldOutTexts(held_out.texts[:500])
    assert sum(few.occurrence(document.text) is not None for document in reviews[:300]) > 20
