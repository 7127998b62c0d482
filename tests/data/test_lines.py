"""Lines are cut at line feeds and nowhere else."""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from duihua.data.lines import read_lines, stream_lines
from duihua.errors import DataError


def test_line_i_stays_line_i(tmp_path: Path) -> None:
    text = "one\u2028still one\nzwei\x0bstill two\r\n\n四\n"
    (tmp_path / "plain").write_bytes(b"\xef\xbb\xbf" + text.encode("utf-8"))
    (tmp_path / "packed.gz").write_bytes(gzip.compress(text.encode("utf-8")))
    expected = ["one\u2028still one", "zwei\x0bstill two", "", "四"]
    assert read_lines(str(tmp_path / "plain")) == read_lines(str(tmp_path / "packed.gz")) == expected
    assert text.splitlines() != expected, "Python's own rule cuts inside sentences"
    (tmp_path / "empty").write_bytes(b"")
    assert read_lines(str(tmp_path / "empty")) == []


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"fine\n\xff\n")
    with pytest.raises(DataError, match=r"bad:2: bytes that are not UTF-8"):
        read_lines(str(tmp_path / "bad"))
    with pytest.raises(DataError, match="no such file"):
        read_lines(str(tmp_path / "absent"))
    (tmp_path / "bad.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match="cannot be read"):
        read_lines(str(tmp_path / "bad.gz"))


def test_a_stream_of_lines_gives_what_the_whole_file_gives(tmp_path: Path) -> None:
    text = "one\u2028still one\r\n\n四\nlast"
    (tmp_path / "plain").write_bytes(b"\xef\xbb\xbf" + text.encode("utf-8"))
    (tmp_path / "packed.gz").write_bytes(gzip.compress(text.encode("utf-8")))
    for name in ("plain", "packed.gz"):
        assert list(stream_lines(tmp_path / name)) == read_lines(str(tmp_path / name))
    (tmp_path / "bad").write_bytes(b"fine\n\xff\n")
    lines = stream_lines(tmp_path / "bad")
    assert next(lines) == "fine"
    with pytest.raises(DataError, match=r"bad:2:1: bytes that are not UTF-8"):
        next(lines)
    (tmp_path / "bad.gz").write_bytes(b"no gzip")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"one\ntwo\n" * 999)[:-12])
    for name, problem in {"absent": "no such file", "bad.gz": "cannot be read", "cut.gz": "cannot be read"}.items():
        with pytest.raises(DataError, match=problem):
            list(stream_lines(tmp_path / name))


def test_standard_input_is_streamed_by_the_same_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = "\ufeffone\u2028still one\r\n\n四\n".encode() + b"\xff\n"
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(raw)))
    lines = stream_lines("-")
    assert [next(lines) for _ in range(3)] == ["one\u2028still one", "", "四"]
    with pytest.raises(DataError, match=r"standard input:4:1: bytes that are not UTF-8"):
        next(lines)
