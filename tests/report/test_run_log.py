from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from duihua.errors import DuihuaError
from duihua.files import read_json
from duihua.report import machine, run_log
from duihua.report.lock import LOCK_FILE, only_run
from duihua.report.run_log import RunLog


def facts() -> dict[str, Any]:
    return {"stages": [{"name": "one"}, {"name": "two"}]}


def test_the_heartbeat_writes_the_record_while_a_stage_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_log, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(run_log, "WRITE_SECONDS", 0.05)
    written = threading.Event()
    real, count = RunLog.save, 0

    def save(log: RunLog) -> None:
        nonlocal count
        real(log)
        count += 1
        if count == 4:
            written.set()

    monkeypatch.setattr(RunLog, "save", save)
    with RunLog(tmp_path, facts()) as log:
        log.begin_work(["duihua"])
        log.begin("one", fresh=True)
        assert written.wait(20)
        record = read_json(tmp_path / "run.json")  # as a kill at this moment would leave it
    assert record["stages"][0]["status"] == "unfinished"
    assert record["stages"][0]["seconds"] > 0
    assert record["stages"][0]["peak_memory_gib"] > 0


def test_time_of_an_attempt_that_does_nothing_is_not_counted(tmp_path: Path) -> None:
    with RunLog(tmp_path, facts()) as log:
        log.begin_work(["duihua"])
        log.begin("one", fresh=True)
        log.end("one", "finished")
        log.finish()
    before = read_json(tmp_path / "run.json")
    with RunLog(tmp_path, facts()) as log:
        log.end("one", "finished")
        log.finish()
    assert read_json(tmp_path / "run.json") == before


def test_a_broken_record_starts_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{half")
    with RunLog(tmp_path, facts()) as log:
        log.begin_work(["duihua"])
    assert read_json(tmp_path / "run.json")["stages"][1]["status"] == "unfinished"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's process table")
def test_tree_memory_counts_the_children() -> None:
    asked = "from duihua.report import machine; print(machine.tree_memory(), machine.own_peak_memory())"
    said = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout
    childless, peak = map(int, said.split())
    assert 0 < childless <= peak * 1.5
    alone = machine.tree_memory()  # and of what other tests have started and still need
    program = "held = bytearray(b'x' * 100_000_000); print(len(held), flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdin is not None
    try:
        child.stdout.readline()
        assert machine.tree_memory() - alone > 90_000_000
    finally:
        child.communicate(b"\n")


def test_machine_and_versions_are_stated() -> None:
    stated = machine.machine()
    assert 1 <= stated["cores"] <= (os.cpu_count() or 1)
    assert stated["memory_gib"] > 0
    assert set(machine.versions()) >= {"duihua", "python", "torch", "numpy"}


def test_the_lock_is_free_after_its_block_and_names_its_owner_inside(tmp_path: Path) -> None:
    with only_run(tmp_path):
        with pytest.raises(DuihuaError, match=rf"process {os.getpid()}"), only_run(tmp_path):
            pass
        assert (tmp_path / LOCK_FILE).read_text() == f"{os.getpid()}\n"
    with only_run(tmp_path):
        pass


def test_a_stale_number_in_the_lock_file_means_nothing(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).write_text("1\n")
    with only_run(tmp_path):
        pass
