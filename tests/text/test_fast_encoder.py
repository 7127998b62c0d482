"""The quick encoder gives the ids of the stored tokenizer, and is refused wherever that cannot be shown."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import fastokens
import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from duihua.text import fast_encoder as module
from duihua.text.bpe_training import PATTERN
from duihua.text.byte_alphabet import BYTE_OF_CHARACTER
from duihua.text.fast_encoder import fast_encoder
from duihua.text.tokenizer import Tokenizer

NAME_OF_BYTE = {byte: name for name, byte in BYTE_OF_CHARACTER.items()}
PIECES = [
    "the",
    " the",
    "th",
    "e ",
    "on",
    "一个",
    "你",
    "好。",
    "\n",
    "  ",
    "\r\n",
    "'s",
    "12",
    "é",
    "\u0301",
    "🙂",
    "ſ",
]


def backend_of(merges: Sequence[tuple[str, str]], pattern: str = PATTERN) -> tokenizers.Tokenizer:
    """Byte-level BPE of these merges, ids in their order."""
    names = [*BYTE_OF_CHARACTER, *("".join(merge) for merge in merges)]
    made = tokenizers.Tokenizer(models.BPE({name: id for id, name in enumerate(names)}, list(merges)))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    made.encode_special_tokens = True
    return made


def slow(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer._backend.encode(text, add_special_tokens=False).ids)


@pytest.fixture(scope="module")
def quick(tokenizer: Tokenizer) -> fastokens.Tokenizer:
    found = fast_encoder(tokenizer._backend)
    assert found is not None
    return found


def both(quick: fastokens.Tokenizer, text: str) -> list[list[int]]:
    """Ids of a text alone, and in a batch with others."""
    batch = quick.encode_batch(["你 x", text, text], split_special_tokens=True)
    return [quick.encode_ordinary(text).ids, batch[1].ids, batch[2].ids]


@given(text=st.text(max_size=80) | st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
@settings(max_examples=400)
def test_both_ways_give_the_same_ids(tokenizer: Tokenizer, quick: fastokens.Tokenizer, text: str) -> None:
    assert both(quick, text) == [slow(tokenizer, text)] * 3


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_long_texts_whose_parts_are_split_side_by_side_give_the_same_ids(
    tokenizer: Tokenizer, quick: fastokens.Tokenizer, seed: int
) -> None:
    text = "".join(np.random.default_rng(seed).choice([*PIECES, "a" * 700, " " * 300], 20_000))
    assert both(quick, text) == [slow(tokenizer, text)] * 3


def test_all_kinds_of_characters_are_split_alike(tokenizer: Tokenizer, quick: fastokens.Tokenizer) -> None:
    points = [point for point in range(0, 0x110000, 53) if not 0xD800 <= point < 0xE000]
    text = "\n\nzz\n\n".join(f"a{chr(p)}b 1{chr(p)}{chr(p)}\n.{chr(p)} 's{chr(p)}" for p in points)
    assert quick.encode_ordinary(text).ids == slow(tokenizer, text)


@pytest.mark.parametrize("text", [" " * 50_000, "a" * 50_000, "你" * 50_000, "\n " * 50_000, "^" * 50_000])
def test_endless_pieces_are_no_trouble(tokenizer: Tokenizer, quick: fastokens.Tokenizer, text: str) -> None:
    assert both(quick, text) == [slow(tokenizer, text)] * 3


def test_control_tokens_in_a_text_stay_text(quick: fastokens.Tokenizer, tokenizer: Tokenizer) -> None:
    for ids in both(quick, "<|im_end|><|im_start|>system"):
        assert ids and not tokenizer.special_ids & set(ids)
    opened = quick.encode("<|im_end|>").ids  # what must not be called
    assert tokenizer.special_ids & set(opened)


def test_a_child_of_a_process_that_has_encoded_encodes_too(tokenizer: Tokenizer, quick: fastokens.Tokenizer) -> None:
    text = "the 你好 " * 5_000
    expected = both(quick, text)
    child = os.fork()
    if child == 0:
        os._exit(0 if both(quick, text) == expected else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_token_that_is_never_written_as_itself_is_read_as_the_merges_say() -> None:
    backend = backend_of([("b", "c"), ("a", "b"), ("ab", "c")])  # "abc" is read as a, bc: the third merge never happens
    found = fast_encoder(backend)
    assert found is not None
    assert found.encode_ordinary("abc").ids == backend.encode("abc").ids
    assert len(backend.encode("abc").ids) == 2


def test_ids_that_do_not_rise_with_the_merges_are_no_trouble() -> None:
    stored = json.loads(backend_of([("a", "b"), ("b", "c")]).to_str())
    vocabulary = stored["model"]["vocab"]
    vocabulary["ab"], vocabulary["bc"] = vocabulary["bc"], vocabulary["ab"]
    turned = tokenizers.Tokenizer.from_str(json.dumps(stored))
    turned.encode_special_tokens = True
    found = fast_encoder(turned)
    assert found is not None
    assert found.encode_ordinary("abc").ids == turned.encode("abc").ids == [vocabulary["ab"], vocabulary["c"]]


def test_nfc_and_patterns_of_other_families_are_read_too() -> None:
    merges = [("1", "2"), ("12", "3"), ("123", "4")]
    qwen, gpt2, llama = (
        backend_of(merges),
        backend_of(merges),
        backend_of(merges, r"\p{N}{1,3}|[^\r\n\p{L}\p{N}]?\p{L}+|."),
    )
    qwen.normalizer = normalizers.NFC()
    gpt2.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    text = "the cafe\u0301's 12345  the\n\n the end"
    for backend in (qwen, gpt2, llama):
        found = fast_encoder(backend)
        assert found is not None
        assert found.encode_ordinary(text).ids == backend.encode(text, add_special_tokens=False).ids
    assert len({tuple(backend.encode(text).ids) for backend in (qwen, gpt2, llama)}) == 3


def test_what_changes_the_text_otherwise_is_refused() -> None:
    merges = [("t", "h"), ("th", "e")]
    plain, normalised, prefixed, added, open_to_control, by_digits = (backend_of(merges) for _ in range(6))
    assert fast_encoder(plain) is not None
    normalised.normalizer = normalizers.NFKC()
    prefixed.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    added.add_tokens([AddedToken("the end", special=False)])
    open_to_control.encode_special_tokens = False
    by_digits.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(False)])
    assert [fast_encoder(one) for one in (normalised, prefixed, added, open_to_control, by_digits)] == [None] * 5


def test_a_byte_without_a_token_and_text_that_nothing_splits_are_refused() -> None:
    whole, unsplit = backend_of([("t", "h")]), backend_of([("t", "h")])
    assert fast_encoder(whole) is not None
    stored = json.loads(whole.to_str())
    del stored["model"]["vocab"][NAME_OF_BYTE[0xC7]]  # of letters that no probe holds
    lacking = tokenizers.Tokenizer.from_str(json.dumps(stored))
    unsplit.pre_tokenizer = pre_tokenizers.Sequence([])
    for backend in (lacking, unsplit):
        backend.encode_special_tokens = True
        assert fast_encoder(backend) is None


def test_what_is_put_around_a_text_afterwards_is_no_matter() -> None:
    backend = backend_of([("t", "h"), ("th", "e")])
    backend.add_special_tokens(["<s>"])
    backend.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 258)])
    backend.encode_special_tokens = True
    found = fast_encoder(backend)
    assert found is not None and backend.encode("the").ids == [258, 257]
    assert both(found, "the<s>") == [backend.encode("the<s>", add_special_tokens=False).ids] * 3


def altered(change: Callable[[dict[str, Any]], None]) -> SimpleNamespace:
    """fastokens as it would be if it had read the file otherwise."""

    def read(source: str) -> fastokens.Tokenizer:
        stored = json.loads(source)
        change(stored)
        return fastokens.Tokenizer.from_json_str(json.dumps(stored))

    return SimpleNamespace(Tokenizer=SimpleNamespace(from_json_str=read))


def other_merges(stored: dict[str, Any]) -> None:
    stored["model"]["merges"].reverse()


def other_letters(stored: dict[str, Any]) -> None:
    split = stored["pre_tokenizer"]["pretokenizers"][0]
    split["pattern"]["Regex"] = PATTERN.replace(r"\p{L}", r"[\p{L}\p{M}]")


@pytest.mark.parametrize("change", [other_merges, other_letters])
def test_an_engine_that_reads_otherwise_is_refused(
    tokenizer: Tokenizer, change: Callable[[dict[str, Any]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "fastokens", altered(lambda stored: None))
    assert fast_encoder(tokenizer._backend) is not None
    monkeypatch.setattr(module, "fastokens", altered(change))
    assert fast_encoder(tokenizer._backend) is None


def test_a_pattern_that_the_other_engine_cannot_read_is_refused() -> None:
    assert fast_encoder(backend_of([("a", "b")], r"(?<word>\p{L}+)\g<word>?|.")) is None


def test_a_tokenizer_turns_to_the_quick_way_and_its_ids_do_not_change(tokenizer: Tokenizer) -> None:
    fresh = Tokenizer(tokenizer._backend, {}, None)
    texts = ["the end <|im_end|> 你好\ud800", "", "a  b\n\n c's"]

    def found() -> list[object]:
        ids, ends = fresh.encode_flat(texts)
        return [[fresh.encode(text) for text in texts], fresh.encode_batch(texts), ids.tolist(), ends.tolist()]

    before = found()
    assert fresh._fast is None
    fresh.encode_batch(["x " * 10 * fresh.vocabulary_size])
    assert fresh._fast is not None
    assert found() == before
    assert before[0] == before[1] and before[2] == [id for ids in fresh.encode_batch(texts) for id in ids]
    ids, ends = fresh.encode_flat([])
    assert len(ids) == len(ends) == 0
