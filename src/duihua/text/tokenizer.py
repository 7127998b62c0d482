"""The tokenizer: byte-level BPE over the bytes of the text, trained by us or read from a Hugging Face directory.

Why byte-level BPE (Sennrich et al. 2016 on bytes, as in GPT-2): every string of any language has an encoding and
decodes to itself, with no unknown token. Why Qwen2's pre-tokenizer pattern, unchanged, and no normaliser: this exact
combination is what other programs know under one name (`pre = qwen2` in GGUF), so an exported model is tokenized there
as here.

The silent trap of chat models: a control token such as `<|im_end|>` written by a user in a message must stay plain
text, or the user can end his turn and speak as the system. `encode` therefore never gives a control id, whatever the
text; only `ChatTemplate` places them, by id. A tokenizer that is loaded keeps the files' own settings: its normaliser,
its specials, its chat template, and the stop ids of `generation_config.json`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import fastokens
import numpy as np
import numpy.typing as npt
import tokenizers

from duihua.errors import BundleError, DuihuaError
from duihua.files import sha256_json, write_atomic, write_json
from duihua.text.bpe_training import train_bpe
from duihua.text.byte_alphabet import bytes_of_name
from duihua.text.byte_spans import offset_spans, spans_of_bytes
from duihua.text.chatml import END_OF_TEXT, IM_END, IM_START, PAD, chatml
from duihua.text.fast_encoder import fast_encoder
from duihua.text.gpt2_vocabulary import VOCABULARY_FILE, is_gpt2_vocabulary, read_gpt2_vocabulary
from duihua.text.tokenizer_files import (
    is_byte_level,
    own_config,
    read_chat_template,
    read_optional,
    read_stop_ids,
)
from duihua.text.vocabulary import Span

_SURROGATE = re.compile("[\ud800-\udfff]")
_SLOW_CHARACTERS = 20
"""Characters for each token of the vocabulary before the quick encoder is made: by then it has paid for itself."""


class Tokenizer:
    """Text to ids and back. Make one with `train` or `load`.

    chat_template is the jinja source, or None where the directory has none. special_ids are the control ids, which
    `encode` never gives. Ids that an embedding has beyond the tokenizer's own (padding rows) decode to nothing.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        config: dict[str, Any],
        chat_template: str | None,
        extra_stop_ids: Sequence[int] = (),
    ) -> None:
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True  # control strings in text are read as plain text
        self._backend = backend
        self._config = config
        self.chat_template = chat_template
        added = backend.get_added_tokens_decoder()
        self.special_tokens: dict[str, int] = {token.content: id for id, token in added.items() if token.special}
        self.special_ids: frozenset[int] = frozenset(self.special_tokens.values())
        self._strips: dict[str, tuple[bool, bool]] = {t.content: (t.lstrip, t.rstrip) for t in added.values()}
        self.vocabulary_size: int = max(backend.get_vocab(with_added_tokens=True).values()) + 1
        named_end = self._named("eos_token")
        ends = [self.special_tokens.get(IM_END), named_end, self.special_tokens.get(END_OF_TEXT), *extra_stop_ids]
        self.stop_ids: tuple[int, ...] = tuple(dict.fromkeys(id for id in ends if id is not None))
        """Ids that end a reply: the end of a turn, the end of a document, and what generation_config.json lists."""
        self._characters_left = _SLOW_CHARACTERS * self.vocabulary_size
        self._fast: fastokens.Tokenizer | None = None

    # -- making ---------------------------------------------------------------------------------------------------

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary_size: int) -> Tokenizer:
        """Learn merges from `texts` (consumed once) until there are `vocabulary_size` ids, specials and the 256 bytes
        included. The same texts in the same order give the same tokenizer. A pair must occur twice to be merged;
        ConfigError names the reachable size when the texts do not hold enough such pairs.
        """
        return cls(train_bpe(map(_without_surrogates, texts), vocabulary_size), own_config(), chatml())

    @classmethod
    def load(cls, directory: Path) -> Tokenizer:
        """Read tokenizer.json (or GPT-2's vocab.json and merges.txt), tokenizer_config.json, the chat template
        (chat_template.jinja, or the one inside the config) and the stop ids of generation_config.json. Where there is no
        tokenizer, or one of another kind than ours, the result raises BundleError when it is first used, so that a network
        can be loaded and inspected without one.
        """
        directory = Path(directory)
        file = directory / "tokenizer.json"
        config = read_optional(directory / "tokenizer_config.json")
        try:
            if file.is_file():
                backend = tokenizers.Tokenizer.from_str(file.read_text(encoding="utf-8"))
            elif is_gpt2_vocabulary(directory, config, read_optional(directory / "config.json")):
                file = directory / VOCABULARY_FILE
                backend = read_gpt2_vocabulary(directory)
            else:
                return AbsentTokenizer(directory)
        except (DuihuaError, OSError):
            raise
        except Exception as error:  # the library raises bare Exception for every fault in the file
            raise BundleError(f"broken tokenizer: {error}", where=str(file), remedy="Fetch the file again") from error
        if not is_byte_level(backend):
            problem = "the tokenizer is not byte-level BPE, the only kind that is read, so text cannot be encoded"
            return AbsentTokenizer(
                directory, problem, "Use a Qwen-like or GPT-2-like model, or give it another tokenizer"
            )
        return cls(backend, config, read_chat_template(directory, config), read_stop_ids(directory))

    def save(self, directory: Path) -> None:
        """Write tokenizer.json, tokenizer_config.json and chat_template.jinja, readable by transformers."""
        directory = Path(directory)
        write_atomic(directory / "tokenizer.json", self._backend.to_str(pretty=True).encode("utf-8"))
        write_json(directory / "tokenizer_config.json", {k: v for k, v in self._config.items() if k != "chat_template"})
        if self.chat_template is not None:
            write_atomic(directory / "chat_template.jinja", self.chat_template.encode("utf-8"))

    # -- text to ids ----------------------------------------------------------------------------------------------

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; adds no specials and gives no control id. Unpaired surrogates, which are not text, become
        U+FFFD."""
        text = _without_surrogates(text)
        fast = self._fast_encoder(len(text))
        found = self._backend.encode(text, add_special_tokens=False) if fast is None else fast.encode_ordinary(text)
        return list(found.ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, on all cores."""
        clean = list(map(_without_surrogates, texts))
        fast = self._fast_encoder(sum(map(len, clean)))
        if fast is None:
            return [list(found.ids) for found in self._backend.encode_batch_fast(clean, add_special_tokens=False)]
        return [list(found.ids) for found in fast.encode_batch(clean, split_special_tokens=True)]

    def encode_flat(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
        """`encode_batch` without a Python number for each token: the ids one text behind another, and where each one's end."""
        if self._fast is None:  # `encode_batch` makes it when it is worth it
            rows = self.encode_batch(texts)
            return np.fromiter(chain.from_iterable(rows), np.uint32), np.cumsum(list(map(len, rows)), dtype=np.int64)
        ids, ends = self._fast.encode_batch_flat(list(map(_without_surrogates, texts)), split_special_tokens=True)
        return np.frombuffer(ids, "<u4"), np.frombuffer(ends, "<u8")[1:].astype(np.int64)

    def _fast_encoder(self, characters: int) -> fastokens.Tokenizer | None:
        """The quick encoder, made when so much text has been read that it is worth it; None before, and where there is none."""
        if self._characters_left > 0:
            self._characters_left -= characters
            if self._characters_left <= 0:
                self._fast = fast_encoder(self._backend)
        return self._fast

    def spans(self, text: str) -> list[Span]:
        """`encode` with the place of each token. A token of bytes that are no whole character is shown by its bytes."""
        text = _without_surrogates(text)
        found = self._backend.encode(text, add_special_tokens=False)
        pieces = [self.token_bytes(id) for id in found.ids]
        if b"".join(pieces) == text.encode("utf-8"):
            return spans_of_bytes(text, found.ids, pieces)
        return offset_spans(text, found.ids, pieces, found.offsets)  # a normaliser changed the text

    # -- ids to text ----------------------------------------------------------------------------------------------

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """Text of `ids`; bytes that are not UTF-8 become U+FFFD. Ids without a token give nothing."""
        return str(self._backend.decode(list(ids), skip_special_tokens=skip_special))

    def token_bytes(self, id: int) -> bytes:
        """The bytes that `id` stands for (a control token: its name in UTF-8); empty for an id without a token."""
        token = self._backend.id_to_token(id)
        return b"" if token is None else bytes_of_name(token)

    def gives_back(self, text: str, ids: Sequence[int]) -> bool:
        """Whether `ids` stand for exactly the bytes of `text`. Where a foreign tokenizer normalises, adds a space, strips or
        lacks a byte, they do not, and what was lost can be neither predicted nor decoded."""
        return b"".join(map(self.token_bytes, ids)) == text.encode("utf-8", "surrogatepass")

    # -- ids that have a role -------------------------------------------------------------------------------------

    @property
    def unknown_id(self) -> None:
        """There is none: every byte has an id."""
        return None

    @property
    def lossless(self) -> bool:
        """Whether decoding gives the text back to the byte: yes, unless a foreign tokenizer normalises the text first."""
        return self._backend.normalizer is None

    @property
    def end_of_text_id(self) -> int:
        """Stands between documents."""
        return self._role(END_OF_TEXT, self._named("eos_token"))

    @property
    def im_start_id(self) -> int:
        """Opens a chat turn."""
        return self._role(IM_START)

    @property
    def im_end_id(self) -> int:
        """Ends a chat turn: `<|im_end|>`, or the tokenizer's own end token where it has no such name."""
        return self._role(IM_END, self._named("eos_token"), *self.stop_ids[:1])

    @property
    def pad_id(self) -> int:
        """Fills rows of a batch; where the tokenizer names none, the end of a document."""
        named = self._named("pad_token")
        return named if named is not None else self._role(PAD, self.special_tokens.get(END_OF_TEXT), *self.stop_ids[:1])

    def specification(self) -> dict[str, Any]:
        """What tokenizer.json says, as plain JSON."""
        found: dict[str, Any] = json.loads(self._backend.to_str())
        return found

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides ids: the tokenizer and the chat template."""
        return sha256_json({"tokenizer": self._backend.to_str(), "chat_template": self.chat_template})

    def token_name(self, role: str) -> str | None:
        """The token that tokenizer_config.json names for "bos_token", "eos_token", "pad_token" or "unk_token"."""
        named = self._config.get(role)
        if isinstance(named, dict):  # older files write the whole AddedToken
            named = named.get("content")
        return named if isinstance(named, str) else None

    def strips(self, token: str) -> tuple[bool, bool]:
        """Whether the control token swallows the white space on its left and on its right (some foreign ones do)."""
        return self._strips.get(token, (False, False))

    def _named(self, role: str) -> int | None:
        name = self.token_name(role)
        return None if name is None else self._backend.token_to_id(name)

    def _role(self, name: str, *alternatives: int | None) -> int:
        for id in (self.special_tokens.get(name), *alternatives):
            if id is not None:
                return id
        raise BundleError(
            f"the tokenizer has no {name} and names nothing in its place",
            where="tokenizer_config.json",
            remedy="Name it in tokenizer_config.json, or fetch the tokenizer again",
        )


class AbsentTokenizer(Tokenizer):
    """Stands for the tokenizer of a directory that has none or one that is not read, and says so at its first use."""

    def __init__(
        self,
        directory: Path,
        problem: str = "no tokenizer.json in this directory, so text cannot be encoded",
        remedy: str = "Copy the model's tokenizer.json and tokenizer_config.json into it",
    ) -> None:
        self._directory = directory
        self._problem = problem
        self._remedy = remedy

    @property
    def reason(self) -> str:
        """Why there is none."""
        return self._problem

    @property
    def error(self) -> BundleError:
        """What is raised."""
        return BundleError(self._problem, where=str(self._directory), remedy=self._remedy)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise self.error


def _without_surrogates(text: str) -> str:
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)
