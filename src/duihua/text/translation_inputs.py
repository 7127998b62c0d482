"""Sentences as a translator reads and writes them: ids, the end token, and for a model of several directions a tag.

The tag says which language is wanted: one id before the source, beyond the tokenizer's own, so that no text can hold it
(Johnson et al. 2017, "Google's Multilingual Neural Machine Translation System", section 3: an artificial token at the
beginning of the input sentence). A model of one direction needs none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from duihua.text.tokenizer import Tokenizer

NO_TAGS: Mapping[str, int] = MappingProxyType({})


class TranslationInputs:
    """Text to ids and back. tags: language that is written -> id that asks for it; empty for one direction."""

    def __init__(self, tokenizer: Tokenizer, tags: Mapping[str, int] = NO_TAGS) -> None:
        self.tokenizer, self.tags = tokenizer, dict(tags)
        self.end_id, self.start_id, self.pad_id = tokenizer.im_end_id, tokenizer.im_start_id, tokenizer.pad_id

    @property
    def vocabulary_size(self) -> int:
        """Rows of the embedding: the tokenizer's ids, then the tags."""
        return max([self.tokenizer.vocabulary_size, *(tag + 1 for tag in self.tags.values())])

    def sources(self, texts: Sequence[str], to_language: str) -> list[tuple[int, ...]]:
        """Ids of each text that is read: the tag where there are tags, the text, the end."""
        before = (self.tags[to_language],) if self.tags else ()
        return [(*before, *ids, self.end_id) for ids in self.tokenizer.encode_batch([tidy(text) for text in texts])]

    def targets(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Ids of each text that is written: the text, the end."""
        return [(*ids, self.end_id) for ids in self.tokenizer.encode_batch([tidy(text) for text in texts])]

    def text(self, ids: Sequence[int]) -> str:
        """What the model wrote, as text."""
        return self.tokenizer.decode(list(ids)).strip()


def tags_for(tokenizer: Tokenizer, languages: Sequence[str]) -> dict[str, int]:
    """A tag for each language, the ids behind the tokenizer's own."""
    return {language: tokenizer.vocabulary_size + place for place, language in enumerate(sorted(set(languages)))}


def tidy(text: str) -> str:
    """White space as one space: what training did to its sentences."""
    return " ".join(text.split())
