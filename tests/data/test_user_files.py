"""A user's own files: every format gives the same records, faults are counted with file and line, memory stays small."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from duihua.data.records import Document, Record
from duihua.data.rows import DOCUMENT_CHARACTERS, Fault, Row, form_of, read_rows
from duihua.data.source import ColumnsConfig, Source, SourceConfig, open_source
from duihua.data.user_files import UserFiles
from duihua.errors import ConfigError, DataError

TEXTS = ["first text", "第二段，带逗号", 'a "quoted" third']


def everything(source: Source) -> list[Record]:
    return [*source.records("train"), *source.records("heldout")]


def write(path: Path, form: str) -> None:
    rows = [{"text": text} for text in TEXTS]
    if form == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return
    if form == "jsonl":
        content = "\n".join(json.dumps(row) for row in rows)
    elif form == "json":
        content = json.dumps(rows, indent=1)
    elif form == "csv":
        content = "\ufefftext\r\n" + "".join('"' + text.replace('"', '""') + '"\r\n' for text in TEXTS)
    else:
        content = "text\tother\n" + "".join(f"{text}\tx\n" for text in TEXTS)
    raw = content.encode()
    if path.suffix == ".gz":
        raw = gzip.compress(raw)
    elif path.suffix == ".zst":
        raw = zstandard.ZstdCompressor().compress(raw)
    path.write_bytes(raw)


@pytest.mark.parametrize(
    "name",
    [
        "a.jsonl",
        "a.jsonl.gz",
        "a.jsonl.zst",
        "a.json",
        "a.json.gz",
        "a.csv",
        "a.csv.zst",
        "a.tsv",
        "a.parquet",
        "A.JSONL",
    ],
)
def test_every_format_gives_the_same_texts(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, name.lower().split(".")[1])
    source = open_source(SourceConfig(path=str(tmp_path / name)), tmp_path)
    assert sorted(r.text for r in everything(source) if isinstance(r, Document)) == sorted(TEXTS)
    assert source.left_out.total == 0


def test_a_json_object_of_one_list_or_of_records_is_read_as_records(tmp_path: Path) -> None:
    for content in ({"data": [{"text": "a"}, {"text": "b"}]}, {"x": {"text": "a"}, "y": {"text": "b"}}, ["a", "b"]):
        path = tmp_path / "a.json"
        path.write_text(json.dumps(content))
        assert [row.values["text"] for row in read_rows(path) if isinstance(row, Row)] == ["a", "b"]


def test_a_folder_is_read_in_the_order_of_names_and_other_types_are_counted(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.txt").write_text("text b")
    (tmp_path / "sub" / "a.md").write_text("# text a")
    (tmp_path / "c.pdf").write_bytes(b"%PDF")
    (tmp_path / ".hidden.txt").write_text("hidden")
    source = open_source(SourceConfig(path=str(tmp_path)), tmp_path)
    assert isinstance(source, UserFiles)
    assert [file.name for file in source.files] == ["b.txt", "a.md"]
    assert {r.text for r in everything(source) if isinstance(r, Document)} == {"text b", "# text a"}
    assert dict(source.left_out.counts) == {"file of a type that is not read as text (.pdf)": 1}


def test_a_glob_names_files(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", "c.md"):
        (tmp_path / name).write_text(name)
    source = open_source(SourceConfig(path=str(tmp_path / "*.txt")), tmp_path)
    assert {r.text for r in everything(source) if isinstance(r, Document)} == {"a.txt", "b.txt"}


def test_a_long_text_is_cut_at_empty_lines_and_nothing_is_lost(tmp_path: Path) -> None:
    paragraphs = [f"paragraph {index} " * 60 for index in range(60)]
    (tmp_path / "a.txt").write_text("\n\n".join(paragraphs))
    rows = [row for row in read_rows(tmp_path / "a.txt") if isinstance(row, Row)]
    assert len(rows) > 3
    assert all(len(row.values["text"]) < DOCUMENT_CHARACTERS + 2000 for row in rows)
    assert "\n\n".join(row.values["text"] for row in rows) == "\n\n".join(paragraphs)
    lines = (tmp_path / "a.txt").read_text().split("\n")
    for row in rows:
        assert row.values["text"].startswith(lines[int(row.place.rsplit(":", 1)[1]) - 1])


def test_an_empty_file_is_one_empty_row(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("")
    assert [row.values for row in read_rows(tmp_path / "a.txt") if isinstance(row, Row)] == [{"text": ""}]
    with pytest.raises(DataError, match="no usable record: empty text"):
        everything(open_source(SourceConfig(path=str(tmp_path / "a.txt")), tmp_path))


def test_bad_lines_are_counted_with_their_place_and_the_rest_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "good"}\n{bad}\n\xff\xfe\n\n3\n{"text": ""}\n{"text": "also good"}\n')
    source = open_source(SourceConfig(path=str(path)), tmp_path)
    assert {r.text for r in everything(source) if isinstance(r, Document)} == {"good", "also good"}
    assert source.left_out.total == 4
    assert {place.removeprefix(str(path)) for place in source.left_out.first_place.values()} == {
        ":2:2",
        ":3:1",
        ":5",
        ":6: text",
    }


def test_csv_faults_name_the_line_where_the_record_begins(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'text,x\n"two\nlines",1\nonly one\n\xff\xfe,2\nlast,3\n')
    rows = list(read_rows(path))
    assert [row.place.rsplit(":", 1)[1] for row in rows] == ["2", "4", "5", "6"]
    assert [isinstance(row, Fault) for row in rows] == [False, True, True, False]


def test_half_a_character_is_a_fault_and_a_whole_one_in_two_escapes_is_not(tmp_path: Path) -> None:
    """Nothing could write such a text again: a shard, a rollout or a report of it would end in the middle of a run."""
    lines = [
        {"text": "fine \U0001f600"},
        {"text": "cut \ud83d in half"},
        {"messages": [{"role": "user", "content": "deep \udc00"}]},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    (tmp_path / "b.json").write_text(json.dumps(lines), encoding="utf-8")
    for name, places in (("a.jsonl", ["a.jsonl:2", "a.jsonl:3"]), ("b.json", ["b.json: record 2", "b.json: record 3"])):
        found = list(read_rows(tmp_path / name))
        assert [row.values for row in found if isinstance(row, Row)] == lines[:1]
        faults = [row for row in found if isinstance(row, Fault)]
        assert [(fault.reason, Path(fault.place).name) for fault in faults] == [
            ("half a character (a surrogate alone)", place) for place in places
        ]


def test_what_is_wrong_with_json_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("[" * 100_000 + "\n" + "1" * 5000 + "\n", encoding="utf-8")
    deep, long = list(read_rows(tmp_path / "a.jsonl"))
    assert isinstance(deep, Fault) and deep.reason == "bad JSON: nested too deeply"
    assert isinstance(long, Fault) and "digits" in long.reason


def test_broken_files_stop_with_one_line(tmp_path: Path) -> None:
    cases = {
        "a.json": (b'{"text": \n oops}', r"a\.json:2:2: bad JSON"),
        "b.json": (b'["\xff"]', r"b\.json:1: bytes that are not UTF-8"),
        "c.jsonl.gz": (b"no gzip", "cannot be read"),
        "d.jsonl.zst": (b"no zstandard", "not a zst file"),
        "e.parquet": (b"no parquet", "not a readable parquet file"),
        "f.jsonl.gz": (gzip.compress(b'{"text": "x"}\n' * 1000)[:40], "cannot be read"),
    }
    for name, (content, said) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=said) as caught:
            everything(open_source(SourceConfig(path=str(tmp_path / name)), tmp_path))
        assert "\n" not in str(caught.value)


def test_what_cannot_be_meant_is_refused_when_opened(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    with pytest.raises(DataError, match="no such file or folder"):
        open_source(SourceConfig(path=str(tmp_path / "nothing.jsonl")), tmp_path)
    with pytest.raises(DataError, match="no file of a type that is read"):
        open_source(SourceConfig(path=str(tmp_path)), tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ConfigError, match="holds no conversations"):
        open_source(SourceConfig(path=str(tmp_path), kind="conversations"), tmp_path)
    assert form_of(Path("a.parquet.gz")) is None


def test_plain_text_beside_conversations_is_counted_not_read(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("about")
    (tmp_path / "a.jsonl").write_text('{"question": "q", "answer": "r"}\n')
    source = open_source(SourceConfig(path=str(tmp_path), kind="conversations"), tmp_path)
    assert len(everything(source)) == 1
    assert dict(source.left_out.counts) == {"file of a type that is not read as conversations (.md)": 1}


def test_a_named_column_does_not_bind_plain_text_of_the_same_folder(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("plain")
    (tmp_path / "b.jsonl").write_text('{"body": "from a column"}\n')
    config = SourceConfig(path=str(tmp_path), columns=ColumnsConfig(text="body"))
    assert {r.text for r in everything(open_source(config, tmp_path)) if isinstance(r, Document)} == {
        "plain",
        "from a column",
    }


def test_fingerprint_follows_content_and_columns_not_the_folder(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jsonl").write_text('{"text": "a", "body": "b"}\n')
    here, there = (open_source(SourceConfig(path=str(tmp_path / folder)), tmp_path) for folder in ("x", "y"))
    assert here.fingerprint() == there.fingerprint()
    other = open_source(SourceConfig(path=str(tmp_path / "x"), columns=ColumnsConfig(text="body")), tmp_path)
    assert other.fingerprint() != here.fingerprint()
    (tmp_path / "x" / "a.jsonl").write_text('{"text": "changed"}\n')
    assert here.fingerprint() != there.fingerprint()


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    line = json.dumps({"text": "x" * 1000}) + "\n"
    peaks = []
    for lines in (200, 2000):
        path.write_text(line * lines)
        source = open_source(SourceConfig(path=str(path)), tmp_path)
        tracemalloc.start()
        assert sum(1 for _ in source.records("train")) + sum(1 for _ in source.records("heldout")) == lines
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] < 1_500_000


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'[\n  {"text": "a"}\n]\n', r"a\.jsonl:1: one JSON text over several lines.*such as a\.json\."),
        ("a.jsonl", b'\n{\n  "text": "a"\n}\n', r"a\.jsonl:2: one JSON text over several lines"),
        ("a.csv", b"text;label\na;b\n", r"a\.csv:1: the columns are parted by semicolons.*with commas"),
        ("a.csv", b"text\tlabel\na\tb\n", r"a\.csv:1: the columns are parted by tabs.*Name it \.tsv"),
        ("a.jsonl", '{"text": "你好"}\n'.encode("utf-16"), r"a\.jsonl:1: the file is UTF-16.*iconv -f UTF-16"),
        ("a.json", '[{"text": "你好"}]\n'.encode("utf-16"), r"a\.json:1: the file is UTF-16.*iconv -f UTF-16"),
        ("a.csv", "text\n你好\n".encode("utf-16"), r"a\.csv:1: the file is UTF-16.*iconv -f UTF-16"),
        ("a.jsonl", '{"text": "你好"}\n'.encode("gbk"), r"bytes that are not UTF-8.*iconv -f GBK"),
    ],
)
def test_a_file_of_another_form_or_encoding_is_told_how_to_be_mended(
    name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        list(UserFiles(SourceConfig(path=str(tmp_path / name))).records("train"))
