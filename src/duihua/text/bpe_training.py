"""Learning byte-level BPE's merges from text (Sennrich et al. 2016, on bytes as in GPT-2), with Qwen2's pattern.

Kept apart from the tokenizer because reading and using one needs none of it. `tokenizers` does the counting: it is the
library whose file format we write, so what is trained is at once what every other program reads.
"""

from __future__ import annotations

from collections.abc import Iterable

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

from duihua.errors import ConfigError
from duihua.text.chatml import SPECIAL_TOKENS

SMALLEST_VOCABULARY = 256 + len(SPECIAL_TOKENS)

# Qwen2's pattern, from its tokenizer.json: contractions; a word with one leading mark; digits; runs of marks; spaces.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train_bpe(texts: Iterable[str], vocabulary_size: int) -> tokenizers.Tokenizer:
    """Merges of `texts` (consumed once, no unpaired surrogates) until there are `vocabulary_size` ids. ConfigError as in
    Tokenizer.train."""
    if vocabulary_size < SMALLEST_VOCABULARY:
        raise ConfigError(
            f"a vocabulary of {vocabulary_size} cannot hold the 256 bytes and {len(SPECIAL_TOKENS)} control tokens",
            where="vocabulary_size",
            remedy=f"Choose at least {SMALLEST_VOCABULARY}",
        )
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        min_frequency=2,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    reached = backend.get_vocab_size(with_added_tokens=True)
    if reached < vocabulary_size:
        raise ConfigError(
            f"the data allows a vocabulary of {reached}, and {vocabulary_size} was asked for",
            where="vocabulary_size",
            remedy=f"Choose {reached} or less, or give more text",
        )
    return backend
