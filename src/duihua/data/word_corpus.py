"""Corpora in the form of the Penn Treebank for language models (Mikolov et al. 2010, section 3): three files of prepared text.

    ptb.train.txt  ptb.valid.txt  ptb.test.txt     one sentence a line, words with a space between them, lower case,
                                                   numbers as N, no punctuation, rare words as <unk>

Why this form: every recurrent language model from 2010 to 2018 was measured on it, so a model that is trained here can be
held against published figures. Each line ends with one more token, the end of the sentence, which is predicted and counted
like a word: of the original there are 929,589 + 73,760 + 82,430 tokens over 10,000 types (9,999 words and the end).

The vocabulary is that of the training file. A word of another file that it lacks is an error and not silently <unk>: it
would mean that the files do not belong together, or were not prepared, and the perplexity would be a fiction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from duihua.errors import ConfigError, DataError
from duihua.files import sha256_file, sha256_json, write_atomic
from duihua.text.vocabulary import END, UNKNOWN
from duihua.text.words import WordVocabulary

Part: TypeAlias = Literal["train", "valid", "test"]
PARTS: tuple[Part, ...] = ("train", "valid", "test")
FILES: Mapping[Part, str] = {part: f"ptb.{part}.txt" for part in PARTS}
TREEBANK_TOKENS: Mapping[Part, int] = {"train": 929_589, "valid": 73_760, "test": 82_430}
"""Tokens of the original files, ends of sentences included."""


@dataclass(frozen=True)
class WordCorpus:
    """A corpus as ids. ids[part]: all sentences of a part, each followed by the end token, int64."""

    vocabulary: WordVocabulary
    ids: Mapping[Part, npt.NDArray[np.int64]]
    sentences: Mapping[Part, int]
    name: str
    sha256: Mapping[Part, str]

    @property
    def tokens(self) -> dict[str, int]:
        """Tokens of each part, ends of sentences included."""
        return {part: len(self.ids[part]) for part in PARTS}

    @property
    def unknown_share(self) -> dict[str, float]:
        """Share of each part's tokens that are <unk>: a corpus with many is easy, and perplexities do not compare."""
        return {part: float((self.ids[part] == self.vocabulary.unknown_id).mean()) for part in PARTS}

    @property
    def is_treebank(self) -> bool:
        """Whether its counts are those of the original."""
        return self.tokens == dict(TREEBANK_TOKENS)

    def with_types(self, count: int) -> WordCorpus:
        """The same text over its `count` most frequent types, <unk> and the end included; rarer words become <unk>.

        What that costs is seen in `unknown_share`; perplexities over different vocabularies do not compare.
        """
        if not 2 < count <= self.vocabulary.vocabulary_size:
            raise ConfigError(
                f"must be 3 to the {self.vocabulary.vocabulary_size} of {self.name}, found {count}",
                where="types",
                remedy="Set 0 to keep them all",
            )
        words = self.vocabulary.words[: count - 2]  # most frequent first, behind the two control ids
        unknown = self.vocabulary.unknown_id
        ids = {part: np.where(each < count, each, unknown) for part, each in self.ids.items()}
        return replace(self, vocabulary=WordVocabulary(words), ids=ids)

    def fingerprint(self) -> str:
        """Hex hash of the three files."""
        return sha256_json([self.sha256[part] for part in PARTS])

    def describe(self) -> dict[str, object]:
        """Counts and hashes as plain JSON."""
        return {
            "name": self.name,
            "vocabulary_size": self.vocabulary.vocabulary_size,
            "tokens": self.tokens,
            "sentences": dict(self.sentences),
            "unknown_share": self.unknown_share,
            "sha256": dict(self.sha256),
            "treebank": self.is_treebank,
        }


def read_word_corpus(directory: Path, name: str = "") -> WordCorpus:
    """The corpus in `directory`. Raises DataError naming file and line for what is missing or not of this form."""
    directory = Path(directory)
    if not directory.is_dir():
        raise DataError("no such directory", where=str(directory), remedy=f"Name the folder with {FILES['train']}")
    missing = [file for file in FILES.values() if not (directory / file).is_file()]
    if missing:
        raise DataError(
            f"lacks {', '.join(missing)}",
            where=str(directory),
            remedy="A corpus of this form has " + ", ".join(FILES.values()),
        )
    lines = {part: list(_sentences(directory / FILES[part])) for part in PARTS}
    vocabulary = WordVocabulary.train(lines["train"])
    known = {UNKNOWN, *vocabulary.words}
    ids: dict[Part, npt.NDArray[np.int64]] = {}
    for part in PARTS:
        if part != "train":
            _refuse_strangers(lines[part], known, directory / FILES[part])
        ids[part] = sentence_ids(lines[part], vocabulary)
    return WordCorpus(
        vocabulary,
        ids,
        {part: len(lines[part]) for part in PARTS},
        name or directory.name,
        {part: sha256_file(directory / FILES[part]) for part in PARTS},
    )


def write_word_corpus(directory: Path, lines: Mapping[Part, Sequence[str]]) -> dict[Part, str]:
    """Write the three files, one sentence a line; gives their SHA-256."""
    for part in PARTS:
        write_atomic(Path(directory) / FILES[part], "".join(f"{line}\n" for line in lines[part]).encode("utf-8"))
    return {part: sha256_file(Path(directory) / FILES[part]) for part in PARTS}


def sentence_ids(lines: Sequence[str], vocabulary: WordVocabulary) -> npt.NDArray[np.int64]:
    """All sentences as one stream of ids, the end token behind each."""
    made: list[int] = []
    for line in lines:
        made += vocabulary.encode(line)
        made.append(vocabulary.end_of_text_id)
    return np.asarray(made, dtype=np.int64)


def _sentences(path: Path) -> Iterator[str]:
    """The lines of a file without the spaces around them. DataError for a line that is empty, not UTF-8 or has an <eos>."""
    number = 0
    with open(path, "rb") as file:
        for number, raw in enumerate(file, start=1):
            try:
                line = raw.decode("utf-8").strip()
            except UnicodeDecodeError as error:
                problem = f"not UTF-8 at byte {error.start} of the line"
                raise DataError(problem, where=f"{path}:{number}", remedy="Write it again as UTF-8") from error
            if not line:
                raise DataError("the line has no words", where=f"{path}:{number}", remedy="Remove empty lines")
            if END in line.split():
                raise DataError(
                    f"holds {END}, which is added to each line when it is read",
                    where=f"{path}:{number}",
                    remedy=f"Remove {END} from the file",
                )
            yield line
    if not number:
        raise DataError("the file is empty", where=str(path), remedy="Fetch or build the corpus again")


def _refuse_strangers(lines: Sequence[str], known: set[str], path: Path) -> None:
    for number, line in enumerate(lines, start=1):
        for word in line.split():
            if word not in known:
                raise DataError(
                    f"the word {word!r} is not in {FILES['train']}",
                    where=f"{path}:{number}",
                    remedy=f"Write {UNKNOWN} in its place, or take the three files from one corpus",
                )
