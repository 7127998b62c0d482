"""Characters, words and byte pairs behind one interface: ids, places, unknowns, and what is kept on disk."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duihua.errors import BundleError, ConfigError
from duihua.text.byte_spans import offset_spans, shown_bytes
from duihua.text.characters import CharacterVocabulary
from duihua.text.segmentation import check_segmentation, segment, words_in
from duihua.text.tokenizer import Tokenizer
from duihua.text.vocabulary import Vocabulary, load_vocabulary
from duihua.text.words import WordVocabulary, cut

ENGLISH = "The cat's mat isn't the dog's mat; it is the cat's."
CHINESE = "我爱自然语言处理，南京市长江大桥。"


def all_kinds(tokenizer: Tokenizer) -> list[Vocabulary]:
    texts = [ENGLISH, CHINESE]
    words = [WordVocabulary.train(texts, 0, kind, lowercase=kind == "marks") for kind in ("spaces", "marks", "jieba")]
    return [tokenizer, CharacterVocabulary.train(texts), *words]


def test_every_kind_is_a_vocabulary(tokenizer: Tokenizer, tmp_path: Path) -> None:
    for number, vocabulary in enumerate(all_kinds(tokenizer)):
        assert isinstance(vocabulary, Vocabulary)
        vocabulary.save(tmp_path / str(number))
        loaded = load_vocabulary(tmp_path / str(number))
        assert type(loaded) is type(vocabulary)
        assert loaded.fingerprint == vocabulary.fingerprint
        assert loaded.encode(ENGLISH + CHINESE) == vocabulary.encode(ENGLISH + CHINESE)
        assert loaded.vocabulary_size == vocabulary.vocabulary_size
    assert len({vocabulary.fingerprint for vocabulary in all_kinds(tokenizer)}) == 5


@settings(max_examples=60)
@given(text=st.text(max_size=40) | st.text("aB's 我爱饕🙂\n\t–<unk>é京", max_size=40))
def test_spans_are_what_is_encoded_and_stand_where_they_say(tokenizer: Tokenizer, text: str) -> None:
    for vocabulary in all_kinds(tokenizer):
        spans = vocabulary.spans(text)
        assert [span.id for span in spans] == vocabulary.encode(text)
        for before, span in zip([None, *spans], spans, strict=False):
            assert 0 <= span.start <= span.end <= len(text)
            assert span.known == (span.id != vocabulary.unknown_id)
            if span.whole and not any("\ud800" <= letter <= "\udfff" for letter in text):
                assert text[span.start : span.end] == span.text
            if before is not None:
                overlap = before.end - span.start
                assert overlap <= 0 or (overlap == 1 and not before.whole and not span.whole)
    assert "".join(segment(text)) == text


def test_characters_decode_to_the_text_and_a_stranger_does_not() -> None:
    vocabulary = CharacterVocabulary.train([ENGLISH, CHINESE])
    assert vocabulary.decode(vocabulary.encode(ENGLISH + CHINESE)) == ENGLISH + CHINESE
    assert vocabulary.decode(vocabulary.encode("the 龘")) == "the <unk>"


def test_a_word_list_keeps_the_most_frequent_and_never_a_control_name() -> None:
    text = "b b b a a c <unk> <unk> <unk> <unk> <eos> <eos> d"
    vocabulary = WordVocabulary.train([text], 5)
    assert vocabulary.words == ("b", "a", "c")
    assert vocabulary.vocabulary_size == 5
    assert vocabulary.encode("a <unk> <eos> d c") == [3, 0, 0, 0, 4]
    assert WordVocabulary.train([text], 0, least_count=2).words == ("b", "a")
    with pytest.raises(ConfigError, match="no room"):
        WordVocabulary.train([text], 2)


def test_words_are_cut_three_ways() -> None:
    def words(kind: str) -> list[str]:
        return cut("Don’t stop: 3.5% of 我爱自然语言", kind)  # type: ignore[arg-type]

    assert words("spaces") == ["Don’t", "stop:", "3.5%", "of", "我爱自然语言"]
    assert words("marks") == ["Don’t", "stop", ":", "3", ".", "5", "%", "of", "我爱自然语言"]
    assert words("jieba")[-3:] == ["我", "爱", "自然语言"]
    assert words_in(" a  b ", "spaces") == [(1, 2), (4, 5)]
    with pytest.raises(ConfigError, match="no segmentation 'stanford'"):
        check_segmentation("stanford", "here")


def test_words_are_written_as_their_language_writes_them() -> None:
    jieba = WordVocabulary.train([CHINESE], 0, "jieba")
    assert jieba.decode(jieba.encode(CHINESE)) == CHINESE
    spaces = WordVocabulary.train(["a b"], 0, "spaces")
    assert spaces.decode([*spaces.encode("a b q"), spaces.end_of_text_id, *spaces.encode("b")]) == "a b <unk>\nb"


def test_case_is_dropped_only_where_that_is_asked_for() -> None:
    lower = WordVocabulary.train(["The the"], 0, "marks", lowercase=True)
    assert lower.words == ("the",)
    assert [span.text for span in lower.spans("THE The")] == ["THE", "The"]
    assert all(span.known for span in lower.spans("THE The"))
    assert WordVocabulary.train(["The the"]).words == ("The", "the")


def test_parts_of_characters_are_shown_as_bytes(tokenizer: Tokenizer) -> None:
    spans = tokenizer.spans("龘a")
    parts = [span for span in spans if not span.whole]
    assert [span.text for span in parts] == ["<E9>", "<BE>", "<98>"]
    assert {(span.start, span.end) for span in parts} == {(0, 1)}
    assert all("\ufffd" not in span.text for span in spans)
    decoded = [tokenizer.decode([span.id]) for span in parts]  # what a viewer that decodes shows: the control
    assert decoded == ["\ufffd"] * 3
    assert shown_bytes("a京".encode() + b"\xe6\x88" + b"b") == "a京<E6 88>b"
    spans = offset_spans("Å", [1, 2], [b"A", b"\xcc"], [(0, 1), (0, 1)])
    assert [(span.start, span.end, span.text, span.whole) for span in spans] == [
        (0, 1, "A", True),
        (0, 1, "<CC>", False),
    ]


def test_broken_vocabularies_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such directory"):
        load_vocabulary(tmp_path / "nowhere")
    with pytest.raises(BundleError, match="no vocabulary"):
        load_vocabulary(tmp_path)
    for text, message in [
        ('{"format": 2, "words": []}', "format 2"),
        ('{"format": 1, "words": ["a", "a"], "segmentation": "spaces", "lowercase": false}', "different words"),
        ('{"format": 1, "words": ["a", 3], "segmentation": "spaces", "lowercase": false}', "different words"),
        ('{"format": 1, "words": ["a"], "segmentation": "by ear", "lowercase": false}', "by ear"),
        ('{"format": 1, "words"', "broken JSON"),
        ("[]", "format None"),
    ]:
        (tmp_path / "words.json").write_text(text, encoding="utf-8")
        with pytest.raises(BundleError, match=message):
            load_vocabulary(tmp_path)
    (tmp_path / "words.json").unlink()
    (tmp_path / "characters.json").write_text('{"format": 1, "characters": ["ab"]}', encoding="utf-8")
    with pytest.raises(BundleError, match="different characters"):
        load_vocabulary(tmp_path)


def test_jieba_prints_nothing_and_leaves_no_file(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom duihua.text.segmentation import words_in\nassert 'jieba' not in sys.modules\n"
        "words_in('no words of Chinese', 'marks')\nassert 'jieba' not in sys.modules\n"
        "print([a for a, _ in words_in('我爱自然语言处理', 'jieba')])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"TMPDIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path), "PYTHONIOENCODING": "utf-8"},
    )
    assert done.stdout == "[0, 1, 2, 6]\n"
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []
    assert tempfile.gettempdir() != str(tmp_path)
