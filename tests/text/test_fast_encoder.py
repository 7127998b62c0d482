"""The quick encoder gives the ids of the stored tokenizer, and is refused wherever that cannot be shown."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
import tiktoken
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from duihua.text.bpe_training import PATTERN
from duihua.text.byte_alphabet import BYTE_OF_CHARACTER, bytes_of_name
from duihua.text.fast_encoder import PROBE, fast_encoder
from duihua.text.tokenizer import Tokenizer

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
def quick(tokenizer: Tokenizer) -> tiktoken.Encoding:
    found = fast_encoder(tokenizer._backend)
    assert found is not None
    return found


@given(text=st.text(max_size=80) | st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
@settings(max_examples=400, deadline=None)
def test_both_ways_give_the_same_ids(tokenizer: Tokenizer, quick: tiktoken.Encoding, text: str) -> None:
    assert quick.encode_ordinary(text) == slow(tokenizer, text)


def test_all_kinds_of_characters_are_split_alike(tokenizer: Tokenizer, quick: tiktoken.Encoding) -> None:
    points = [point for point in range(0, 0x110000, 53) if not 0xD800 <= point < 0xE000]
    text = "\n\nzz\n\n".join(f"a{chr(p)}b 1{chr(p)}{chr(p)}\n.{chr(p)} 's{chr(p)}" for p in points)
    assert quick.encode_ordinary(text) == slow(tokenizer, text)


@pytest.mark.parametrize("text", [" " * 50_000, "a" * 50_000, "你" * 50_000, "\n " * 50_000, "^" * 50_000])
def test_endless_pieces_are_no_trouble(tokenizer: Tokenizer, quick: tiktoken.Encoding, text: str) -> None:
    assert quick.encode_ordinary(text) == slow(tokenizer, text)


def test_control_tokens_in_a_text_stay_text(quick: tiktoken.Encoding, tokenizer: Tokenizer) -> None:
    assert not tokenizer.special_ids & set(quick.encode_ordinary("<|im_end|><|im_start|>system"))


def test_a_token_that_is_never_written_as_itself_is_refused_and_would_have_been_wrong() -> None:
    merges = [("b", "c"), ("a", "b"), ("ab", "c")]  # "abc" is read as a, bc: the third merge never happens
    backend = backend_of(merges)
    assert fast_encoder(backend) is None
    vocabulary = json.loads(backend.to_str())["model"]["vocab"]
    ranks = {bytes_of_name(name): id for name, id in vocabulary.items()}
    unchecked = tiktoken.Encoding("unchecked", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})
    assert backend.encode("abc").ids == [vocabulary["a"], vocabulary["bc"]]
    assert unchecked.encode_ordinary("abc") == [vocabulary["abc"]]
    assert fast_encoder(backend_of([("a", "b"), ("b", "c"), ("ab", "c")])) is not None


def test_ids_that_do_not_rise_with_the_merges_are_refused() -> None:
    backend = backend_of([("a", "b"), ("b", "c")])
    stored = json.loads(backend.to_str())
    vocabulary = stored["model"]["vocab"]
    vocabulary["ab"], vocabulary["bc"] = vocabulary["bc"], vocabulary["ab"]
    turned = tokenizers.Tokenizer.from_str(json.dumps(stored))
    turned.encode_special_tokens = True
    assert fast_encoder(backend) is not None and fast_encoder(turned) is None


def test_what_changes_the_text_first_is_refused() -> None:
    merges = [("t", "h"), ("th", "e")]
    plain, normalised, prefixed, added, open_to_control = (backend_of(merges) for _ in range(5))
    assert fast_encoder(plain) is not None
    normalised.normalizer = normalizers.NFKC()
    prefixed.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    added.add_tokens([AddedToken("the end", special=False)])
    open_to_control.encode_special_tokens = False
    assert [fast_encoder(one) for one in (normalised, prefixed, added, open_to_control)] == [None] * 4


def test_engines_that_differ_on_the_probe_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = backend_of([("a", "b")])
    assert fast_encoder(backend) is not None
    monkeypatch.setattr(tiktoken.Encoding, "encode_ordinary", lambda self, text: [1] if text == PROBE else [])
    assert fast_encoder(backend) is None


def test_a_pattern_that_the_other_engine_cannot_read_is_refused() -> None:
    assert fast_encoder(backend_of([("a", "b")], r"(?<word>\p{L}+)\g<word>?|.")) is None


def test_a_tokenizer_turns_to_the_quick_way_and_its_ids_do_not_change(tokenizer: Tokenizer) -> None:
    fresh = Tokenizer(tokenizer._backend, {}, None)
    texts = ["the end <|im_end|> 你好\ud800", "", "a  b\n\n c's"]
    before = [fresh.encode(text) for text in texts], fresh.encode_batch(texts)
    assert fresh._fast is None
    fresh.encode_batch(["x " * 10 * fresh.vocabulary_size])
    assert fresh._fast is not None
    assert ([fresh.encode(text) for text in texts], fresh.encode_batch(texts)) == before
