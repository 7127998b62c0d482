"""Parallel texts out of a Hugging Face data set, in three parts that share no text.

Such a set has one sentence in many pairs as often as any other, so its parts are made by groups (`groups.py`) and not pair by
pair as the rows come. That costs what streaming saves elsewhere: until the last row is known any two groups may be one, so
all rows are read, once, before the first pair is given, and kept. A translator keeps its pairs in memory anyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from duihua.data.columns import ColumnPlan, plan_columns, to_record
from duihua.data.hub import HubSource
from duihua.data.parallel.base import TEST_SHARE, VALIDATION_SHARE, Part, parse_languages
from duihua.data.parallel.groups import Result, split_pairs
from duihua.data.parallel.own_files import ParallelApart, columns_for, flattened
from duihua.data.records import BadRecordError, LeftOut, Parallel, Record, Split
from duihua.data.rows import Fault
from duihua.data.source import Source, SourceConfig
from duihua.files import sha256_json


class HubPairs(HubSource):
    """A Hugging Face data set of parallel texts."""

    def __init__(
        self, config: SourceConfig, test_share: float = TEST_SHARE, validation_share: float = VALIDATION_SHARE
    ) -> None:
        """Raises DataError where the extra `hub` is missing, ConfigError for languages that are none."""
        super().__init__(config)
        self._shares = (test_share, validation_share)
        self.languages = parse_languages(config.languages, f"hub {config.hub}, languages")
        self.language = "-".join(self.languages)

    def results(self) -> Iterator[Result]:
        """Every row as a pair with its place, or why there is none."""
        plan: ColumnPlan | None = None
        for index, each in enumerate(self.rows()):
            row, place = flattened(each), f"{self.name}: record {index + 1}"
            plan = plan or plan_columns("parallel", columns_for(self._config, self.languages, row), row, place)
            try:
                record = to_record(row, plan, self.name, self.language)
            except BadRecordError as bad:
                yield Fault(bad.reason, f"{place}: {bad.field}")
                continue
            assert isinstance(record, Parallel)
            yield record, place

    @cached_property
    def _pairs(self) -> tuple[list[tuple[Parallel, Part]], LeftOut]:
        left_out = LeftOut()
        pairs = split_pairs(self.results(), left_out, self.name, *self._shares)
        return [(pair, part) for pair, _, part in pairs], left_out

    def part(self, part: Part) -> Iterator[Parallel]:
        """A part, in the set's order; `left_out` counts the whole set, whichever part is asked for."""
        pairs, self.left_out = self._pairs
        return (pair for pair, its in pairs if its == part)

    def records(self, split: Split) -> Iterator[Record]:
        """The training part, or validation and test."""
        pairs, self.left_out = self._pairs
        return (pair for pair, its in pairs if (its == "train") == (split == "train"))

    def fingerprint(self) -> str:
        """That of the settings, and how the parts are made."""
        return sha256_json([super().fingerprint(), list(self._shares), "by groups"])


def open_hub_pairs(config: SourceConfig, heldout: SourceConfig | None) -> Source:
    """The set that `config` names. heldout: another split of it, which is the test then; validation comes out of the first."""
    if heldout is None:
        return HubPairs(config)
    return ParallelApart(HubPairs(config, 0.0), HubPairs(heldout, 0.0, 0.0))
