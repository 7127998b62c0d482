"""The merges we learn are those that `tokenizers` learns from the same texts, ties and runs included."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pytest
import regex
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

from duihua.text import bpe_merges
from duihua.text.bpe_merges import _Merging, learn_merges
from duihua.text.bpe_training import PATTERN, SMALLEST_VOCABULARY, count_pieces, train_bpe
from duihua.text.chatml import SPECIAL_TOKENS

BYTES = np.arange(256)


def learnt_by_the_library(texts: Iterable[str], size: int) -> tokenizers.Tokenizer:
    """The same tokenizer by the trainer of `tokenizers`."""
    made = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PATTERN), behavior="isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    return made


ODD = [
    "don't I'LL",
    "你好",
    "今天天气很好",
    "我们一起去公园",
    "aaaaaaa aaaa",
    "哈哈哈哈哈",
    "----- ...",
    "abababab",
    "1999",
    "🙂🙂🙂",
]


def sample(seed: int) -> list[str]:
    """Lines of both languages with runs, numbers, line ends, an emoji, and many ties."""
    draw = random.Random(seed)
    gaps = [" ", " ", "", "  ", "\r\n\r\n\t", "\x1c \x1f"]
    words = ["".join(draw.choices("aeioutns", k=draw.randint(2, 7))) for _ in range(300)] + 10 * ODD
    return ["".join(draw.choice(words) + draw.choice(gaps) for _ in range(20)) for _ in range(60)]


@pytest.mark.parametrize(("seed", "size"), [(0, 300), (1, 500), (2, 700)])
def test_the_whole_tokenizer_equals_the_library_s(seed: int, size: int) -> None:
    texts = sample(seed)
    assert train_bpe(iter(texts), size).to_str() == learnt_by_the_library(texts, size).to_str()


def test_the_check_sees_runs_merged_from_the_right(monkeypatch: pytest.MonkeyPatch) -> None:
    def from_the_right(self: _Merging, places: NDArray[np.int64], symbol: int) -> NDArray[np.int64]:
        kept: list[int] = []
        for place in np.sort(places)[::-1].tolist():
            if not kept or place + int(self.lengths[symbol]) != kept[-1]:
                kept.append(place)
        return np.array(kept[::-1])

    texts = sample(0)
    theirs = learnt_by_the_library(texts, 500).to_str()
    monkeypatch.setattr(_Merging, "_not_overlapping", from_the_right)
    assert train_bpe(iter(texts), 500).to_str() != theirs


def plainly(pieces: dict[str, int], size: int, least: int) -> list[tuple[int, int]]:
    """Algorithm 1 of Sennrich et al. 2016: count all pairs, merge the best, and again."""
    words = {tuple(piece.encode()): count for piece, count in pieces.items()}
    merges: list[tuple[int, int]] = []
    for made in range(256, size):
        counts: Counter[tuple[int, int]] = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                counts[pair] += count
        best = min(counts, key=lambda pair: (-counts[pair], pair), default=None)
        if best is None or counts[best] < least:
            break
        merges.append(best)
        merged: Counter[tuple[int, ...]] = Counter()
        for word, count in words.items():
            new: list[int] = []
            for symbol in word:
                if new and (new[-1], symbol) == best:
                    new[-1] = made
                else:
                    new.append(symbol)
            merged[tuple(new)] += count
        words = dict(merged)
    return merges


PIECES = st.dictionaries(st.text("abc\0\u00ff", min_size=1, max_size=9), st.integers(1, 4), min_size=1, max_size=12)


@settings(max_examples=250)
@given(
    PIECES,
    st.sampled_from([1, 2, 3]),
    st.sampled_from([290, 60_000]),
    st.sampled_from([1, 3, 2**18]),
    st.sampled_from([1, 5, 2**17]),
)
def test_counting_only_at_the_top_finds_what_counting_everything_finds(
    pieces: dict[str, int], least: int, size: int, block: int, at_once: int
) -> None:
    """Also with keys that need 64 bits, and with pairs over the edges of the blocks that are sorted at first and of the places
    that are counted again at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bpe_merges, "_BLOCK", block)
        patch.setattr(bpe_merges, "_AT_ONCE", at_once)
        found = learn_merges(pieces, BYTES, size, least)
    assert found == plainly(pieces, size, least)


def test_what_a_run_of_equal_symbols_leaves_may_come_next() -> None:
    pieces = {"aa": 1, "bbb": 2}
    assert learn_merges(pieces, BYTES, 290, 1) == [(98, 98), (256, 98), (97, 97)] == plainly(pieces, 290, 1)


def test_the_check_sees_other_ties() -> None:
    pieces = {"ab": 2, "cd": 2, "abcd": 1}
    mirrored = [(255 - left, 255 - right) for left, right in learn_merges(pieces, BYTES[::-1].copy(), 257)]
    assert mirrored == [(99, 100)] != plainly(pieces, 257, 2) == learn_merges(pieces, BYTES, 257)


def test_ends_where_nothing_occurs_often_enough() -> None:
    assert learn_merges({}, BYTES, 300) == []
    assert learn_merges({"a": 5, "b": 7}, BYTES, 300) == []
    assert learn_merges({"ab": 1}, BYTES, 300) == []
    assert learn_merges({"ab": 1, "abc": 1}, BYTES, 300) == [(97, 98)]


def test_pieces_are_those_of_the_tokenizer() -> None:
    every = "".join(
        f"a{chr(code)} {chr(code)}1{chr(code)}'S\n" for code in range(0x3000) if chr(code).isprintable() or code < 0x100
    )
    texts = [*sample(3), every, "a\x1c\x1cb \x1f\u2028\u00a0 x", "'ſ it'ſ", ""]
    split = pre_tokenizers.Split(Regex(PATTERN), behavior="isolated")
    theirs = Counter(piece for text in texts for piece, _ in split.pre_tokenize_str(text))
    assert count_pieces(texts) == theirs
    other = regex.compile(PATTERN.replace(r"|\s+(?!\S)", ""))  # without a space left for the word behind
    assert Counter(piece for text in texts for piece in other.findall(text)) != theirs


def test_the_smallest_vocabulary_has_no_merges() -> None:
    assert train_bpe(["aaaa aaaa"], SMALLEST_VOCABULARY).get_vocab_size() == SMALLEST_VOCABULARY
