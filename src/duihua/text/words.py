"""One id for each of the most frequent words; all others share the unknown id.

Why the unknown id is the whole problem: words follow Zipf's law, so that any list leaves some out, and a model can neither
read nor write what has none. The Penn Treebank in its usual form (Mikolov et al. 2010) has its rare words replaced by <unk>
beforehand, 10,000 types in all; that text is read with the segmentation "spaces", and a literal <unk> in it is the unknown id.

Spaces between words are not kept: `decode` joins words by one space where the languages do so, and the text it gives reads
like the original without being it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import cast

from duihua.errors import BundleError
from duihua.files import sha256_json, write_json
from duihua.text.characters import most_frequent, read_entries
from duihua.text.segmentation import SEGMENTATIONS, Segmentation, words_in
from duihua.text.vocabulary import END, END_ID, UNKNOWN, UNKNOWN_ID, WORDS_FILE, Span

FORMAT = 1
_WIDE = re.compile(r"[\u3000-\u303f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef]")
"""Chinese characters and marks, around which no space is written."""


class WordVocabulary:
    """Words, most frequent first, after the two control ids. Make one with `train` or `load`.

    segmentation: "spaces", "marks" or "jieba" (text/segmentation.py). lowercase: whether case is dropped before looking up.
    """

    unknown_id = UNKNOWN_ID
    end_of_text_id = END_ID
    lossless = False

    def __init__(self, words: Sequence[str], segmentation: Segmentation = "spaces", lowercase: bool = False) -> None:
        self.words = tuple(words)
        self.segmentation: Segmentation = segmentation
        self.lowercase = lowercase
        self._ids = {word: id for id, word in enumerate(self.words, start=END_ID + 1)}

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocabulary_size: int = 0,
        segmentation: Segmentation = "spaces",
        lowercase: bool = False,
        least_count: int = 1,
    ) -> WordVocabulary:
        """The words of `texts` that occur `least_count` times or more; with the two control ids at most `vocabulary_size`
        ids (0: all of them). Of equally frequent words the one earlier in code-point order comes first, and the names of
        the control ids are never words. Raises ConfigError for a size that holds no word.
        """
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(cut(text, segmentation, lowercase))
        kept = {word: n for word, n in counts.items() if n >= least_count and word not in (UNKNOWN, END)}
        return cls(most_frequent(kept, vocabulary_size), segmentation, lowercase)

    @classmethod
    def load(cls, directory: Path) -> WordVocabulary:
        """Read what `save` wrote. Raises BundleError where it cannot."""
        path = Path(directory) / WORDS_FILE
        words, stored = read_entries(path, "words", FORMAT)
        segmentation, lowercase = stored.get("segmentation"), stored.get("lowercase")
        if segmentation not in SEGMENTATIONS or not isinstance(lowercase, bool):
            raise BundleError(
                f"segmentation {segmentation!r}, lowercase {lowercase!r}: not what this duihua writes",
                where=str(path),
                remedy="Use the duihua that wrote it, or learn the vocabulary again",
            )
        return cls(words, cast(Segmentation, segmentation), lowercase)

    def save(self, directory: Path) -> None:
        """Write words.json."""
        stored = {"format": FORMAT, "segmentation": self.segmentation, "lowercase": self.lowercase}
        write_json(Path(directory) / WORDS_FILE, {**stored, "words": list(self.words)})

    @property
    def vocabulary_size(self) -> int:
        """Number of ids, the two control ids included."""
        return len(self.words) + END_ID + 1

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the words in order and of how text is cut."""
        return sha256_json({"words": self.words, "segmentation": self.segmentation, "lowercase": self.lowercase})

    def encode(self, text: str) -> list[int]:
        """One id a word."""
        find = self._ids.get
        return [find(word, UNKNOWN_ID) for word in cut(text, self.segmentation, self.lowercase)]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """The words of `ids` with a space between two of them, none beside a Chinese character; the end of a text is a new
        line."""
        shown = (UNKNOWN, "\n", *self.words)
        made = ""
        for word in (shown[id] for id in ids):
            touching = not made or made[-1] == "\n" or word == "\n" or (_WIDE.match(word) and _WIDE.match(made[-1]))
            made += word if touching or (self.segmentation == "jieba" and _joins(made[-1], word[0])) else f" {word}"
        return made

    def spans(self, text: str) -> list[Span]:
        """Each word with its place in the text as it was written."""
        found = []
        for start, end in words_in(text, self.segmentation):
            word = text[start:end]
            id = self._ids.get(word.lower() if self.lowercase else word, UNKNOWN_ID)
            found.append(Span(start, end, id, word, id != UNKNOWN_ID))
        return found


def cut(text: str, segmentation: Segmentation, lowercase: bool = False) -> list[str]:
    """The words of `text` in order, in lower case where that is asked for."""
    if segmentation == "spaces":
        return (text.lower() if lowercase else text).split()
    words = [text[start:end] for start, end in words_in(text, segmentation)]
    return [word.lower() for word in words] if lowercase else words


def _joins(before: str, after: str) -> bool:
    """Whether mixed Chinese text has no space between these two characters."""
    return bool(_WIDE.match(before) or _WIDE.match(after))
