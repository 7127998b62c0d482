"""GPT-2's tokenizer in its first form: vocab.json (token -> id) and merges.txt (one merge a line), without tokenizer.json.

Why only GPT-2's: the two files do not say by which pattern text is cut before merging. For GPT-2 it is known (Radford et
al. 2019, section 2.2: byte-level BPE that never merges across kinds of characters), while Qwen2, whose directories hold
files of the same names, cuts otherwise; a guess would give wrong ids without any error.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

VOCABULARY_FILE, MERGES_FILE = "vocab.json", "merges.txt"
END_OF_TEXT = "<|endoftext|>"


def is_gpt2_vocabulary(directory: Path, tokenizer_config: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether `directory` has the two files, and its tokenizer_config.json or config.json names GPT-2."""
    if not all((directory / name).is_file() for name in (VOCABULARY_FILE, MERGES_FILE)):
        return False
    named = str(tokenizer_config.get("tokenizer_class") or "")
    return named.startswith("GPT2") if named else config.get("model_type") == "gpt2"


def read_gpt2_vocabulary(directory: Path) -> tokenizers.Tokenizer:
    """The tokenizer of the two files. Raises Exception, as the library does, when one is broken."""
    model = models.BPE.from_file(str(directory / VOCABULARY_FILE), str(directory / MERGES_FILE))
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if backend.token_to_id(END_OF_TEXT) is not None:
        backend.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    return backend
