from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duihua.errors import GenerationError
from duihua.text.text_stream import TextStream
from duihua.text.tokenizer import Tokenizer

Stream = Callable[[Tokenizer, Sequence[int], Sequence[str]], str]


def streamed(tokenizer: Tokenizer, ids: Sequence[int], stops: Sequence[str] = ()) -> str:
    stream = TextStream(tokenizer, stops)
    return "".join([*(stream.push(id) for id in ids), stream.finish()])


def id_by_id(tokenizer: Tokenizer, ids: Sequence[int], stops: Sequence[str] = ()) -> str:
    """The usual mistake: each id decoded alone, each piece looked at alone."""
    pieces = []
    for piece in (tokenizer.decode([id]) for id in ids):
        if any(stop in piece for stop in stops):
            break
        pieces.append(piece)
    return "".join(pieces)


def splits(tokenizer: Tokenizer, text: str, number: int) -> list[int]:
    """Ids of `text` cut into bytes and learnt pieces at random: another of the many encodings of the same text."""
    data, ids, choose = text.encode("utf-8"), [], random.Random(number)
    by_bytes = {tokenizer.token_bytes(id): id for id in range(4, tokenizer.vocabulary_size)}
    while data:
        lengths = [n for n in range(1, 13) if data[:n] in by_bytes]
        length = choose.choice(lengths)
        ids.append(by_bytes[data[:length]])
        data = data[length:]
    return ids


TEXT = "你好，世界！😀👨‍👩‍👧 naïve café, and the dog 中华人民共和国"


def survives_every_split(tokenizer: Tokenizer, stream: Stream) -> bool:
    return all(stream(tokenizer, splits(tokenizer, TEXT, n), ()) == TEXT for n in range(60))


def test_chinese_and_emoji_survive_every_split(tokenizer: Tokenizer) -> None:
    assert survives_every_split(tokenizer, streamed)


def test_the_same_check_rejects_decoding_id_by_id(tokenizer: Tokenizer) -> None:
    assert not survives_every_split(tokenizer, id_by_id)


@given(ids=st.lists(st.integers(0, 620), max_size=40))
@settings(max_examples=300)
def test_pieces_of_any_ids_join_to_the_decoded_whole(tokenizer: Tokenizer, ids: list[int]) -> None:
    assert streamed(tokenizer, ids) == tokenizer.decode(ids)


def cut_by_hand(text: str, stops: Sequence[str]) -> str:
    """Reads character by character and stops as soon as a stop string stands at the end."""
    for end in range(1, len(text) + 1):
        matched = [stop for stop in stops if text[:end].endswith(stop)]
        if matched:
            return text[: end - max(map(len, matched))]
    return text


def stops_never_leak(tokenizer: Tokenizer, stream: Stream, text: str, stops: Sequence[str]) -> bool:
    return all(stream(tokenizer, splits(tokenizer, text, n), stops) == cut_by_hand(text, stops) for n in range(8))


@given(
    text=st.text(alphabet="ab你😀", max_size=25),
    stops=st.lists(st.text(alphabet="ab你😀", min_size=1, max_size=4), min_size=1, max_size=3),
)
@settings(max_examples=150)
def test_stop_strings_never_leak_whatever_the_split(tokenizer: Tokenizer, text: str, stops: list[str]) -> None:
    assert stops_never_leak(tokenizer, streamed, text, stops)


def test_the_same_check_rejects_looking_at_each_piece_alone(tokenizer: Tokenizer) -> None:
    assert not stops_never_leak(tokenizer, id_by_id, "一二三你好四五", ["你好"])


def test_nothing_is_held_longer_than_needed(tokenizer: Tokenizer) -> None:
    one = {text: tokenizer.encode(text)[0] for text in "ENDx"}
    stream = TextStream(tokenizer, ["END"])
    assert stream.push(one["x"]) == "x"
    assert stream.push(one["E"]) == ""
    assert stream.push(one["N"]) == ""
    assert stream.push(one["E"]) == "EN"  # the second E may still begin END
    assert stream.push(one["x"]) == "Ex"
    assert not stream.stopped
    assert "".join(stream.push(one[letter]) for letter in "ENDx") == ""
    assert stream.stopped and stream.stop_string == "END"
    assert stream.finish() == ""


def test_a_character_appears_with_its_last_byte(tokenizer: Tokenizer) -> None:
    by_bytes = {tokenizer.token_bytes(id): id for id in range(4, tokenizer.vocabulary_size)}
    stream = TextStream(tokenizer)
    pieces = [stream.push(by_bytes[bytes([byte])]) for byte in "😀a".encode()]
    assert pieces == ["", "", "", "😀", "a"]


def test_unfinished_bytes_end_as_the_replacement_character(tokenizer: Tokenizer) -> None:
    by_bytes = {tokenizer.token_bytes(id): id for id in range(4, tokenizer.vocabulary_size)}
    stream = TextStream(tokenizer)
    ids = [by_bytes[bytes([byte])] for byte in "你".encode()[:2]]
    assert [stream.push(id) for id in ids] == ["", ""]
    assert stream.finish() == "\ufffd" == tokenizer.decode(ids)


def test_control_tokens_give_no_text(tokenizer: Tokenizer) -> None:
    assert streamed(tokenizer, [*tokenizer.encode("hi"), tokenizer.im_end_id]) == "hi"


def test_an_empty_stop_string_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(GenerationError, match="empty"):
        TextStream(tokenizer, [""])
