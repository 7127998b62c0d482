"""What every way of cutting text into ids has in common: bytes pairs, characters and words behind one interface.

Why one interface: two language models can only be compared when the rest is the same, and a bag of words, an n-gram model
and a Transformer differ in what they do with ids, not in how they get them. Why spans: a count of tokens says nothing about
which ones; where each token stands in the text, and whether the vocabulary knows it, can be shown and checked.

`load_vocabulary` tells the three kinds apart by the file that each of them writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from duihua.errors import BundleError

CHARACTERS_FILE, WORDS_FILE = "characters.json", "words.json"
TOKENIZER_FILES = ("tokenizer.json", "vocab.json")
UNKNOWN, END = "<unk>", "<eos>"
"""How a vocabulary of characters or words shows its two control ids, 0 and 1."""
UNKNOWN_ID, END_ID = 0, 1


@dataclass(frozen=True)
class Span:
    """One token in its text.

    start, end: the characters that it touches, text[start:end]. text: what the token stands for; bytes that are no whole
    character are shown as <E6 88>. known: False where the vocabulary has no entry and the id is the unknown one.
    whole: False where the token begins or ends inside a character, as byte-level tokens can; such spans overlap.
    """

    start: int
    end: int
    id: int
    text: str
    known: bool
    whole: bool = True


@runtime_checkable
class Vocabulary(Protocol):
    """Text to ids and back, and where each token stands.

    encode gives no control id but the unknown one. decode gives text that reads like the original; only a lossless kind
    gives the original itself.
    """

    @property
    def vocabulary_size(self) -> int:
        """Number of ids."""

    @property
    def unknown_id(self) -> int | None:
        """The id of whatever has no entry; None where everything has one."""

    @property
    def end_of_text_id(self) -> int:
        """Stands between documents or sentences."""

    @property
    def lossless(self) -> bool:
        """Whether ids give the text back to the byte, where none is the unknown one."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides ids."""

    def encode(self, text: str) -> list[int]:
        """Ids of `text`."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`."""

    def spans(self, text: str) -> list[Span]:
        """`encode` with the place of each token, in order."""

    def save(self, directory: Path) -> None:
        """Write what `load_vocabulary` reads."""


def load_vocabulary(directory: Path) -> Vocabulary:
    """The vocabulary in `directory`: characters, words or a tokenizer. Raises BundleError where there is none or a broken
    one."""
    directory = Path(directory)
    if not directory.is_dir():
        raise BundleError("no such directory", where=str(directory), remedy="Name the folder of a vocabulary or model")
    if (directory / CHARACTERS_FILE).is_file():
        from duihua.text.characters import CharacterVocabulary

        return CharacterVocabulary.load(directory)
    if (directory / WORDS_FILE).is_file():
        from duihua.text.words import WordVocabulary

        return WordVocabulary.load(directory)
    from duihua.text.tokenizer import AbsentTokenizer, Tokenizer

    tokenizer = Tokenizer.load(directory)
    if isinstance(tokenizer, AbsentTokenizer):
        raise BundleError(
            f"has no vocabulary that is read: none of {CHARACTERS_FILE}, {WORDS_FILE}, {', '.join(TOKENIZER_FILES)}"
            if not any((directory / name).is_file() for name in TOKENIZER_FILES)
            else tokenizer.reason,
            where=str(directory),
            remedy="Name the folder of a vocabulary or model",
        )
    return tokenizer
