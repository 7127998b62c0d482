"""Learning byte-level BPE's merges from text (Sennrich et al. 2016, on bytes as in GPT-2), with Qwen2's pattern.

Kept apart from the tokenizer because reading and using one needs none of it. What comes out is a tokenizer of `tokenizers`,
the library whose file format we write, so what is learnt is at once what every other program reads; and the same as if that
library had learnt it (text/bpe_merges.py tells why it does not).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import regex
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers

from duihua.errors import ConfigError
from duihua.text.bpe_merges import learn_merges
from duihua.text.byte_alphabet import BYTE_OF_CHARACTER
from duihua.text.chatml import SPECIAL_TOKENS

SMALLEST_VOCABULARY = 256 + len(SPECIAL_TOKENS)

# Qwen2's pattern, from its tokenizer.json: contractions; a word with one leading mark; digits; runs of marks; spaces.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


_PIECES = regex.compile(PATTERN)


def count_pieces(texts: Iterable[str]) -> Counter[str]:
    """How often each piece occurs that the pattern cuts `texts` into; merges stay within a piece."""
    counts: Counter[str] = Counter()
    for text in texts:
        pieces = _PIECES.findall(text, concurrent=False)  # else it lets go of the interpreter's lock at every match
        counts.update(pieces)
    return counts


def train_bpe(texts: Iterable[str], vocabulary_size: int) -> tokenizers.Tokenizer:
    """Merges of `texts` (consumed once, no unpaired surrogates) until there are `vocabulary_size` ids. ConfigError as in
    Tokenizer.train."""
    if vocabulary_size < SMALLEST_VOCABULARY:
        raise ConfigError(
            f"a vocabulary of {vocabulary_size} cannot hold the 256 bytes and {len(SPECIAL_TOKENS)} control tokens",
            where="vocabulary_size",
            remedy=f"Choose at least {SMALLEST_VOCABULARY}",
        )
    pieces = count_pieces(texts)
    names = [*SPECIAL_TOKENS, *sorted(BYTE_OF_CHARACTER)]
    ids = np.empty(256, dtype=np.int64)
    for id, name in enumerate(names[len(SPECIAL_TOKENS) :], start=len(SPECIAL_TOKENS)):
        ids[BYTE_OF_CHARACTER[name]] = id
    merges = []
    for left, right in learn_merges(pieces, ids, vocabulary_size):
        merges.append((names[left], names[right]))
        names.append(names[left] + names[right])
    backend = tokenizers.Tokenizer(models.BPE({name: id for id, name in enumerate(names)}, merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    reached = backend.get_vocab_size(with_added_tokens=True)
    if reached < vocabulary_size:
        raise ConfigError(
            f"the data allows a vocabulary of {reached}, and {vocabulary_size} was asked for",
            where="vocabulary_size",
            remedy=f"Choose {reached} or less, or give more text",
        )
    return backend
