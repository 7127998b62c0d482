"""Cutting text into words: by white space, by what is a letter and what a mark, or for Chinese by jieba.

Why three ways: prepared text (the Penn Treebank) has a space around every token already; running English needs its marks
taken off the words; Chinese writes no spaces at all, so that a word is what a dictionary and a model say it is. jieba looks
up all dictionary words in a sentence, takes the likeliest path through them by their frequencies, and cuts what no
dictionary knows by a hidden Markov model over characters (Sun Junyi, jieba; the tags B, E, M, S are Xue 2003's).

jieba is imported when it is first asked, because its dictionary of 350,000 words takes a second to read. By itself it logs
to standard error and keeps a marshalled copy of its dictionary in the temporary folder, which it believes when it finds
one there. Here the dictionary is read from the package each time: nothing is printed, written or believed.
"""

from __future__ import annotations

import re
import warnings
from functools import cache
from typing import Any, Literal

from duihua.errors import ConfigError

Segmentation = Literal["spaces", "marks", "jieba"]
SEGMENTATIONS: tuple[Segmentation, ...] = ("spaces", "marks", "jieba")

_NOT_SPACE = re.compile(r"\S+")
_WORD_OR_MARK = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|[^\w\s]|_")


def segment(text: str, unknown_words: bool = True) -> list[str]:
    """`text` cut by jieba; joined, the pieces are `text` again, white space included.

    unknown_words: whether words that the dictionary lacks are looked for (by the hidden Markov model).
    """
    return [str(word) for word in _jieba().cut(text, HMM=unknown_words)]


def words_in(text: str, segmentation: Segmentation) -> list[tuple[int, int]]:
    """(start, end) of every word of `text` in characters; white space belongs to none.

    spaces: runs without white space. marks: runs of letters and digits (an apostrophe inside belongs to them), and every
    other mark by itself; a run of Chinese characters is then one word. jieba: jieba's words.
    """
    if segmentation == "jieba":
        found, start = [], 0
        for word in segment(text):
            if not word.isspace():
                found.append((start, start + len(word)))
            start += len(word)
        return found
    pattern = _NOT_SPACE if segmentation == "spaces" else _WORD_OR_MARK
    return [match.span() for match in pattern.finditer(text)]


def check_segmentation(name: str, where: str) -> None:
    """Raise ConfigError for a segmentation that there is not."""
    if name not in SEGMENTATIONS:
        raise ConfigError(f"no segmentation {name!r}", where=where, remedy=f"Choose one of {', '.join(SEGMENTATIONS)}")


@cache
def _jieba() -> Any:
    """jieba's tokenizer with its dictionary, read from the package."""
    with warnings.catch_warnings():  # its sources hold escapes that newer Pythons warn of
        warnings.simplefilter("ignore")
        import jieba

    tokenizer = jieba.Tokenizer()
    tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
    tokenizer.initialized = True
    return tokenizer
