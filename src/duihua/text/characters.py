"""One id for each character: the smallest vocabulary that needs no rule about words.

Why it is worth having: it decodes to the text itself, knows nothing of any language, and shows what a larger unit buys. An
English sentence costs four or five times the tokens of a word vocabulary; a Chinese one is cut where Chinese is written
anyway, but needs some thousand entries, and the rare character is unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from duihua.errors import BundleError, ConfigError, DuihuaError
from duihua.files import read_json, sha256_json, write_json
from duihua.text.vocabulary import CHARACTERS_FILE, END, END_ID, UNKNOWN, UNKNOWN_ID, Span

FORMAT = 1


class CharacterVocabulary:
    """Characters, most frequent first, after the two control ids. Make one with `train` or `load`."""

    unknown_id = UNKNOWN_ID
    end_of_text_id = END_ID
    lossless = True

    def __init__(self, characters: Sequence[str]) -> None:
        self.characters = tuple(characters)
        self._ids = {character: id for id, character in enumerate(self.characters, start=END_ID + 1)}

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary_size: int = 0) -> CharacterVocabulary:
        """The characters of `texts`; with the two control ids at most `vocabulary_size` ids (0: all of them).

        Of equally frequent ones the lower code point comes first. Raises ConfigError for a size that holds no character.
        """
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(text)
        return cls(most_frequent(counts, vocabulary_size))

    @classmethod
    def load(cls, directory: Path) -> CharacterVocabulary:
        """Read what `save` wrote. Raises BundleError where it cannot."""
        path = Path(directory) / CHARACTERS_FILE
        return cls(read_entries(path, "characters", FORMAT, all_of=lambda entry: len(entry) == 1)[0])

    def save(self, directory: Path) -> None:
        """Write characters.json."""
        write_json(Path(directory) / CHARACTERS_FILE, {"format": FORMAT, "characters": list(self.characters)})

    @property
    def vocabulary_size(self) -> int:
        """Number of ids, the two control ids included."""
        return len(self.characters) + END_ID + 1

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the characters in order."""
        return sha256_json({"characters": self.characters})

    def encode(self, text: str) -> list[int]:
        """One id a character."""
        find = self._ids.get
        return [find(character, UNKNOWN_ID) for character in text]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """The characters of `ids`; an unknown one reads <unk>, the end of a text nothing."""
        shown = (UNKNOWN, "", *self.characters)
        return "".join(shown[id] for id in ids)

    def spans(self, text: str) -> list[Span]:
        """Each character with its id."""
        return [
            Span(place, place + 1, id, character, id != UNKNOWN_ID)
            for place, (character, id) in enumerate(zip(text, self.encode(text), strict=True))
        ]


def most_frequent(counts: Mapping[str, int], vocabulary_size: int) -> list[str]:
    """The entries of a vocabulary of so many ids (0: all), most frequent first, equally frequent ones in code-point order.

    Raises ConfigError where the size leaves no room beside the control ids.
    """
    if vocabulary_size and vocabulary_size <= END_ID + 1:
        raise ConfigError(
            f"a vocabulary of {vocabulary_size} has no room beside {UNKNOWN} and {END}",
            where="vocabulary_size",
            remedy=f"Choose at least {END_ID + 2}, or 0 for all there are",
        )
    ordered = sorted(counts, key=lambda entry: (-counts[entry], entry))
    return ordered[: vocabulary_size - END_ID - 1] if vocabulary_size else ordered


def read_entries(path: Path, key: str, format: int, all_of: Any = bool) -> tuple[list[str], dict[str, Any]]:
    """The list of texts under `key` of a vocabulary file, and the whole object. Raises BundleError naming the file.

    all_of: what every entry must satisfy.
    """
    try:
        stored = read_json(path)
    except DuihuaError as error:
        raise BundleError(error.problem, where=error.where, remedy=error.remedy) from error
    found = stored.get("format") if isinstance(stored, dict) else None
    if found != format:
        raise BundleError(
            f"format {found!r}, and this duihua reads {format}",
            where=str(path),
            remedy="Use the duihua that wrote it, or learn the vocabulary again",
        )
    entries = stored.get(key)
    right = isinstance(entries, list) and all(isinstance(entry, str) and all_of(entry) for entry in entries)
    if not right or len(set(entries)) != len(entries):
        raise BundleError(
            f"{key} is not a list of different {key}", where=str(path), remedy="Learn the vocabulary again"
        )
    return entries, stored
