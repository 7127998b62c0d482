"""Reading corpora of the Penn Treebank's form: counts, ids, and errors that name file and line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from duihua.cli.data import main
from duihua.data.word_corpus import FILES, TREEBANK_TOKENS, read_word_corpus, write_word_corpus
from duihua.errors import ConfigError, DataError
from duihua.stages.older_models import TREEBANK_PERPLEXITIES, counted_losses, sentences_of

# As the original looks: a space at both ends of a line, <unk>, N.
TRAIN = " the cat sat on the <unk> \n N cats sat \n the <unk> sat \n"
VALID, TEST = " the cat <unk> \n", " N cats \n sat on \n"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for part, text in (("train", TRAIN), ("valid", VALID), ("test", TEST)):
        (tmp_path / f"ptb.{part}.txt").write_text(text, encoding="utf-8")
    return tmp_path


def test_counts_are_those_of_a_count_by_hand(corpus: Path) -> None:
    found = read_word_corpus(corpus)
    assert found.tokens == {"train": 12 + 3, "valid": 4, "test": 6}  # each line's words and its end
    assert found.sentences == {"train": 3, "valid": 1, "test": 2}
    assert found.vocabulary.words == ("sat", "the", "N", "cat", "cats", "on")  # by frequency, then code point
    assert found.vocabulary.vocabulary_size == 8  # six words, <unk>, the end
    assert found.unknown_share["train"] == pytest.approx(2 / 15)
    assert not found.is_treebank


def test_ids_give_the_text_back_with_the_end_behind_each_sentence(corpus: Path) -> None:
    found = read_word_corpus(corpus)
    end = found.vocabulary.end_of_text_id
    lines = [found.vocabulary.decode(each[:-1].tolist()) for each in sentences_of(found.ids["train"], end)]
    assert lines == [line.strip() for line in TRAIN.splitlines()]
    assert [int(each[-1]) for each in sentences_of(found.ids["test"], end)] == [end, end]


def test_fewer_types_turn_the_rarest_words_into_unknown_ones(corpus: Path) -> None:
    whole = read_word_corpus(corpus)
    fewer = whole.with_types(4)
    assert fewer.vocabulary.words == ("sat", "the")
    assert fewer.vocabulary.decode(fewer.ids["train"][:7].tolist()) == "the <unk> sat <unk> the <unk>\n"
    assert fewer.tokens == whole.tokens
    with pytest.raises(ConfigError, match="must be 3 to the 8"):
        whole.with_types(9)


@pytest.mark.parametrize(
    ("part", "text", "message"),
    [
        ("train", None, "lacks ptb.train.txt"),
        ("train", "", "train.txt: the file is empty"),
        ("test", "the cat\n\nsat\n", r"test.txt:2: the line has no words"),
        ("valid", "the cat\nthe Dog sat\n", r"valid.txt:2: the word 'Dog' is not in ptb.train.txt"),
        ("train", "the cat\na <eos>\n", r"train.txt:2: holds <eos>"),
    ],
)
def test_a_bad_file_is_named_with_its_line(corpus: Path, part: str, text: str | None, message: str) -> None:
    path = corpus / f"ptb.{part}.txt"
    path.unlink() if text is None else path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_word_corpus(corpus)


def test_bytes_that_are_no_text_are_named(corpus: Path) -> None:
    (corpus / "ptb.train.txt").write_bytes(b"the cat\nthe c\xffat\n")
    with pytest.raises(DataError, match=r"ptb.train.txt:2: not UTF-8 at byte 5 of the line"):
        read_word_corpus(corpus)
    with pytest.raises(DataError, match="no such directory"):
        read_word_corpus(corpus / "nowhere")


def test_what_is_written_is_read_back(corpus: Path, tmp_path: Path) -> None:
    lines = {part: (corpus / FILES[part]).read_text().split("\n")[:-1] for part in FILES}
    hashes = write_word_corpus(tmp_path / "again", {part: [line.strip() for line in lines[part]] for part in lines})
    again = read_word_corpus(tmp_path / "again")
    assert again.sha256 == hashes
    assert all((again.ids[part] == read_word_corpus(corpus).ids[part]).all() for part in FILES)


def test_counted_models_agree_with_a_count_by_hand(corpus: Path) -> None:
    """The unigram's perplexity is that of relative frequencies over words and ends of sentences."""
    found = read_word_corpus(corpus)
    losses, stored = counted_losses(found, "unigram")
    # test: N 1/15, cats 1/15, <eos> 3/15, sat 3/15, on 1/15, <eos> 3/15
    product = (1 / 15) ** 3 * (3 / 15) ** 3
    assert losses["test"].perplexity == pytest.approx(product ** (-1 / 6))
    assert losses["test"].tokens == 6
    assert stored == 8
    assert counted_losses(found, "bigram")[0]["train"].perplexity < losses["train"].perplexity


def test_the_command_shows_counts_and_hashes(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["words", "--ptb", str(corpus), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["tokens"] == {"train": 15, "valid": 4, "test": 6}
    assert found["sha256"] == read_word_corpus(corpus).sha256
    assert main(["words", "--ptb", str(corpus)]) == 0
    assert "not the original, which has 929,589 / 73,760 / 82,430 tokens" in capsys.readouterr().out


@pytest.mark.skipif(
    not os.environ.get("DUIHUA_PTB"), reason="the Penn Treebank is not free: set DUIHUA_PTB to its folder"
)
def test_the_original_has_its_known_counts_and_perplexities() -> None:
    found = read_word_corpus(Path(os.environ["DUIHUA_PTB"]))
    assert found.tokens == dict(TREEBANK_TOKENS)
    assert found.vocabulary.vocabulary_size == 10_000
    for name, known in TREEBANK_PERPLEXITIES.items():
        assert counted_losses(found, name)[0]["test"].perplexity == pytest.approx(known, abs=0.1)
