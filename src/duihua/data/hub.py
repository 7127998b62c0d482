"""Any Hugging Face data set as a source, streamed record by record: nothing is downloaded as a whole.

Needs the extra `hub` (the package `datasets`), which is imported only here. Columns are mapped as for a user's own files.
Parallel texts are read by `parallel/hub_pairs.py`, because their parts cannot be told row by row.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from duihua.data.columns import ColumnPlan, plan_columns, to_record
from duihua.data.records import HELD_OUT_SHARE, BadRecordError, Kind, LeftOut, Record, Split, is_held_out
from duihua.data.source import SourceConfig, Terms
from duihua.errors import DataError
from duihua.files import sha256_json


class HubSource:
    """A source that streams a Hugging Face data set."""

    def __init__(self, config: SourceConfig, held_out_share: float = HELD_OUT_SHARE) -> None:
        """Raises DataError where the extra is missing; the network is not touched before the first record."""
        if importlib.util.find_spec("datasets") is None:
            raise DataError(
                "Hugging Face data sets need the extra `hub`",
                where=f"hub {config.hub}",
                remedy="Run `pip install 'duihua[hub]'`",
            )
        self._config, self.held_out_share = config, held_out_share
        self.name = config.hub
        self.kind: Kind = config.kind or "text"
        self.language: str = config.language or "mixed"
        self.terms = Terms(
            "see the data set's card", f"https://huggingface.co/datasets/{config.hub}", config.hub, "Read its terms."
        )
        self.left_out = LeftOut()

    def rows(self) -> Iterator[Mapping[str, Any]]:
        """The data set's rows as they come."""
        import datasets

        config = self._config
        try:
            rows = datasets.load_dataset(
                config.hub,
                config.subset or None,
                split=config.hub_split,
                revision=config.revision or None,
                streaming=True,
            )
            yield from rows
        except (OSError, ValueError, LookupError, RuntimeError) as error:
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise DataError(
                f"the data set cannot be read: {said.rstrip('.')}",
                where=f"hub {config.hub}",
                remedy="Check its name, subset and split, and the network",
            ) from error

    def records(self, split: Split) -> Iterator[Record]:
        """One pass over a split; what is left out is counted in a new `left_out`."""
        left_out = self.left_out = LeftOut()
        return self._pass(split, left_out)

    def _pass(self, split: Split, left_out: LeftOut) -> Iterator[Record]:
        plan: ColumnPlan | None = None
        for index, row in enumerate(self.rows()):
            place = f"{self.name}: record {index + 1}"
            plan = plan or plan_columns(self.kind, self._config.columns, row, place)
            try:
                record = to_record(row, plan, self.name, str(self._config.language), left_out, place)
            except BadRecordError as bad:
                left_out.add(bad.reason, f"{place}: {bad.field}")
                continue
            if is_held_out(record, self.held_out_share) == (split == "heldout"):
                yield record

    def fingerprint(self) -> str:
        """Hash of the settings. Pin `revision`: without it the same settings may give other records tomorrow."""
        settings = {key: value for key, value in asdict(self._config).items() if key not in ("limit", "weight")}
        return sha256_json(settings)
