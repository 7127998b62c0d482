"""MRPC is read in its original form: byte order mark, no quoting, the original test part held out."""

from __future__ import annotations

import csv
import gzip
import io
import os
from pathlib import Path

import pytest

from duihua.data.labelled.mrpc import ENVIRONMENT, Mrpc
from duihua.data.records import Labelled
from duihua.data.source import SourceConfig, open_source
from duihua.errors import DataError

HEADER = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n"
TRAIN = (
    "\ufeff"
    + HEADER
    + '1\t1\t2\t"We will go on, he said.\tHe said that they would go on.\r\n'
    + '0\t3\t4\tThe price fell.\tHe said "no.\r\n'
    + "1\t5\t6\tA line separator\u2028stays inside.\tIt stays inside.\r\n"
    + "0\t7\t8\tone cell too few\r\n"
    + "yes\t9\t10\tA\tB\r\n"
)
TEST = "\ufeff" + HEADER + "0\t11\t12\tShares rose.\tShares fell.\r\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "papers" / "mrpc"
    place.mkdir(parents=True)
    (place / "msr_paraphrase_train.txt").write_bytes(TRAIN.encode())
    (place / "msr_paraphrase_test.txt.gz").write_bytes(gzip.compress(TEST.encode()))
    return place


def test_bare_quotation_marks_and_separators_merge_no_pairs(folder: Path) -> None:
    source = open_source(SourceConfig(path=str(folder), kind="labelled"), folder.parent)
    train = list(source.records("train"))
    assert train == [
        Labelled(('"We will go on, he said.', "He said that they would go on."), "equivalent", "mrpc", "en"),
        Labelled(("The price fell.", 'He said "no.'), "not_equivalent", "mrpc", "en"),
        Labelled(("A line separator\u2028stays inside.", "It stays inside."), "equivalent", "mrpc", "en"),
    ]
    assert dict(source.left_out.counts) == {
        "4 cells where the header has 5": 1,
        "the judgement is neither 0 nor 1": 1,
    }
    assert source.left_out.first_place["4 cells where the header has 5"].endswith("msr_paraphrase_train.txt:5")
    # the wrong way: with quoting on, the first sentence runs on to the next quotation mark, in the pair below
    quoted = list(csv.reader(io.StringIO(TRAIN.removeprefix("\ufeff")), delimiter="\t"))
    assert len(quoted) == 5
    assert "\n0\t3\t4\tThe price fell." in quoted[1][3]


def test_the_original_test_part_is_held_out_whole(folder: Path) -> None:
    source = Mrpc(folder.parent)
    assert [record.texts for record in source.records("heldout") if isinstance(record, Labelled)] == [
        ("Shares rose.", "Shares fell.")
    ]
    before = source.fingerprint()
    (folder / "msr_paraphrase_test.txt.gz").write_bytes(gzip.compress((TEST + "1\t1\t2\ta\tb\r\n").encode()))
    assert source.fingerprint() != before


def test_files_that_are_missing_are_named_with_the_places_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "elsewhere"))
    with pytest.raises(DataError) as caught:
        open_source(SourceConfig(name="mrpc"), tmp_path)
    said = str(caught.value)
    assert "msr_paraphrase_train.txt" in said
    assert str(tmp_path / "mrpc") in said
    assert str(tmp_path / "elsewhere" / "mrpc") in said


def test_files_are_found_in_either_place_and_taken_from_a_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT, str(folder.parent))
    home = tmp_path / "home"
    assert len(list(open_source(SourceConfig(name="mrpc"), home).records("train"))) == 3
    monkeypatch.delenv(ENVIRONMENT)
    Mrpc.take(folder, home)
    assert len(list(open_source(SourceConfig(name="mrpc"), home).records("train"))) == 3
    with pytest.raises(DataError, match=r"needs msr_paraphrase_train\.txt"):
        Mrpc.take(tmp_path, home)


def test_another_table_under_the_name_is_refused(folder: Path) -> None:
    (folder / "msr_paraphrase_train.txt").write_text("label\ttext\n1\ta\n")
    with pytest.raises(DataError, match="first line is not that of MRPC"):
        list(Mrpc(folder.parent).records("train"))


@pytest.mark.skipif(not os.environ.get(ENVIRONMENT), reason=f"${ENVIRONMENT} names no folder with the real files")
def test_the_real_files_have_the_published_counts(tmp_path: Path) -> None:
    source = Mrpc(tmp_path)
    for split in ("train", "heldout"):
        pairs = list(source.records(split))  # type: ignore[arg-type]
        assert len(pairs) == getattr(source.counts, split)
        assert source.left_out.total == 0
    share = sum(pair.label == "equivalent" for pair in pairs if isinstance(pair, Labelled)) / len(pairs)
    assert share == pytest.approx(0.665, abs=0.0005)
