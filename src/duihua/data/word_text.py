"""From running English to the Penn Treebank's form: sentences of lower-case words, numbers as N, rare words as <unk>.

The rules, in order, each for what the original looks like:
- a line break ends a sentence, and so do . ! ? (and closing quotes or brackets) before white space and something that can
  begin a sentence, unless the word before is an initial, has dots inside, or is a title (Mr, Dr, St and the like);
- a word is a run of letters and digits, with hyphens and apostrophes inside; U.S. keeps its dots, as it does in the original;
- n't, 's, 're, 've, 'll, 'd and 'm are words of their own (Marcus et al. 1993's tokenisation);
- a number (digits, with commas or points inside) is N; a range such as 1914-1918 is N N;
- everything else (punctuation, brackets, symbols) is removed, and what is left is put into lower case.
Only then are words counted: the most frequent ones of the training part stay, all others become <unk>.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from duihua.text.vocabulary import UNKNOWN

NUMBER = "N"

_END = re.compile(r"[.!?][\"'”’)\]]*\s+(?=[\"'“‘(\[]*[^\W\d_a-z]|[\"'“‘(\[]*\d)|\n+")
_LAST_WORD = re.compile(r"\S+$")
_TITLES = frozenset(
    ("mr", "mrs", "ms", "dr", "st", "prof", "rev", "gen", "col", "lt", "sgt", "capt", "gov",
     "sen", "rep", "jr", "sr", "vs", "no", "vol", "op", "ca", "etc", "mt", "ft", "inc")
)  # fmt: skip
_TOKEN = re.compile(r"(?:[^\W\d_]\.){2,}|\d+(?:[.,]\d+)*(?![^\W_])|[^\W_]+(?:['’-][^\W_]+)*")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_CLITIC = re.compile(r"(?i)(?<=.)(n['’]t|['’](?:s|re|ve|ll|d|m))$")


def sentences(text: str) -> Iterator[str]:
    """The sentences of running text, as they were written, without the white space around them."""
    start = 0
    for match in _END.finditer(text):
        if "\n" not in match.group() and _goes_on(text[start : match.start() + 1]):
            continue
        if piece := text[start : match.end()].strip():
            yield piece
        start = match.end()
    if piece := text[start:].strip():
        yield piece


def words(sentence: str) -> list[str]:
    """The words of a sentence in the Penn Treebank's form, before rare ones are replaced."""
    found: list[str] = []
    for token in _TOKEN.findall(unicodedata.normalize("NFKC", sentence)):
        parts = token.split("-")
        if all(_NUMBER.fullmatch(part) for part in parts):
            found += [NUMBER] * len(parts)
            continue
        whole = token.replace("’", "'").lower()
        clitic = _CLITIC.search(whole)
        if clitic:
            found += [whole[: clitic.start()], clitic.group()]
        else:
            found.append(whole)
    return found


def prepared(text: str) -> list[str]:
    """Each sentence of `text` as one line of words with a space between them; sentences without a word are left out."""
    return [" ".join(found) for sentence in sentences(text) if (found := words(sentence))]


def most_frequent_words(lines: Iterable[str], count: int) -> frozenset[str]:
    """The `count` most frequent words; of equally frequent ones those earlier in code-point order."""
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(line.split())
    counts.pop(UNKNOWN, None)
    return frozenset(sorted(counts, key=lambda word: (-counts[word], word))[:count])


def with_unknown(lines: Sequence[str], kept: frozenset[str]) -> list[str]:
    """The lines with <unk> for every word that is not kept."""
    return [" ".join(word if word in kept else UNKNOWN for word in line.split()) for line in lines]


def closed_vocabulary(lines: Mapping[str, Sequence[str]], training: str, vocabulary_size: int) -> dict[str, list[str]]:
    """All parts over one vocabulary of `vocabulary_size` types, <unk> and the end of a sentence included, counted on the
    part called `training`."""
    kept = most_frequent_words(lines[training], vocabulary_size - 2)
    return {part: with_unknown(each, kept) for part, each in lines.items()}


def _goes_on(before: str) -> bool:
    """Whether the full stop at the end of `before` belongs to its word: an initial, an abbreviation or a title."""
    last = _LAST_WORD.search(before)
    if last is None or not before.endswith("."):
        return False
    word = last.group().lstrip("\"'“‘([").rstrip(".")
    return (len(word) == 1 and word.isalpha()) or "." in word.strip(".") or word.lower() in _TITLES
