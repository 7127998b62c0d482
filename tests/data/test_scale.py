"""The loader's memory does not grow with the corpus, and what it reads is what stands in the file."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from duihua.data.shards import Shard
from duihua.errors import DataError

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "scale.py"
GIB = 1 << 30


def test_ten_gigabytes_of_text_take_less_than_a_gibibyte() -> None:
    """A sparse file of 6.7 GB of ids, read from everywhere. A megabyte takes almost nothing."""
    if os.uname().sysname != "Linux":
        pytest.skip("resident memory is read from /proc")
    command = [sys.executable, str(BENCHMARK), "--megabytes", "1", "10000", "--steps", "40", "--json"]
    found = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    small, large = json.loads(found.stdout)["loader"]
    assert large["tokens"] > 3e9
    assert small["memory_peak_bytes"] < 64 << 20
    assert large["memory_after_bytes"] < large["memory_peak_bytes"] < GIB
    assert large["memory_after_bytes"] - large["memory_opened_bytes"] < 32 << 20, "reading leaves nothing behind"


def write(folder: Path, ids: list[int], ends: list[int]) -> Shard:
    folder.mkdir(parents=True)
    np.asarray(ids, dtype=np.uint16).tofile(folder / "ids.bin")
    np.asarray(ends, dtype=np.int64).tofile(folder / "ends.bin")
    about = {"dtype": "uint16", "tokens": len(ids), "documents": len(ends), "bytes": 1}
    (folder / "shard.json").write_text(json.dumps(about))
    return Shard(folder)


def test_a_part_of_a_document_is_read_by_its_place(tmp_path: Path) -> None:
    shard = write(tmp_path / "shard", [5, 6, 7, 0, 8, 9, 0], [4, 7])
    assert shard.document(0).tolist() == [5, 6, 7, 0]
    assert shard.document(1).tolist() == [8, 9, 0]
    assert shard.part(1, 1, 1).tolist() == [9]
    assert shard.part(0, 2, 99).tolist() == [7, 0], "no more than the document has"


def test_a_file_that_was_cut_after_it_was_opened_is_noticed(tmp_path: Path) -> None:
    shard = write(tmp_path / "shard", [5, 6, 7, 0, 8, 9, 0], [4, 7])
    os.truncate(tmp_path / "shard" / "ids.bin", 8)
    with pytest.raises(DataError, match="ends too early"):
        shard.document(1)


def test_an_exponent_is_the_slope_of_the_logarithms() -> None:
    exponent = runpy.run_path(str(BENCHMARK))["exponent"]
    assert exponent([(x, 3 * x**-0.5) for x in (256.0, 512.0, 4096.0)]) == pytest.approx(-0.5, abs=1e-12)
    assert exponent([(1.0, 2.0), (2.0, 2.0), (4.0, 2.0)]) == pytest.approx(0.0, abs=1e-12)
