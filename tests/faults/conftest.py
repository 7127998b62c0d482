"""Accidents in the middle of trainings: what the tests of this folder share, and the record that the page is made of.

    python -m pytest tests/faults --faults-report docs/training/faults.json
    python tools/make_fault_pages.py

Commands run in forks of two processes (fault_host.py), one for each of two cores. A test tells what survived by
`lab.survived(fault, family, times)`; names of faults are those of tools/make_fault_pages.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import random
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
NOT_BUNDLE = (
    "fingerprint.json",
    "result.json",
    "settings.json",
    "metrics.jsonl",
    "data.json",
    "progress.json",
    ".lock",
)
FAMILY_NAMES = re.findall(
    r"\w+", re.findall(r"for made in \(([^)]*)\)", (HERE / "families.py").read_text(encoding="utf-8"))[0]
)


@dataclass(frozen=True)
class Ended:
    """A command that has ended: exit code (minus a signal's number), seconds, changes of files, and all that it said."""

    code: int
    seconds: float
    events: int
    said: str


class Host:
    """A process that forks a command at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.number = folder, 0
        alone = {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "fault_host.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **alone},
        )

    def run(self, argv: list[str], fault: dict[str, Any], root: Path, after: float | None, number: int) -> Ended:
        """Run `duihua argv` in a fork that meets with `fault`; it is sent `number` after so many seconds."""
        self.number += 1
        log = self.folder / f"{self.process.pid}-{self.number}.log"
        request = {"argv": argv, "fault": fault, "root": str(root), "log": str(log), "after": after, "signal": number}
        answer = self._ask(json.dumps(request))
        said = log.read_text(encoding="utf-8", errors="replace")
        return Ended(answer["code"], answer["seconds"], answer["events"], said)

    def wait(self) -> None:
        """Until it has imported everything."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)

    def _ask(self, line: str) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found


@dataclass
class Lab:
    """Runs families and compares what they leave."""

    folder: Path
    hosts: list[Host]
    makers: Any
    record: dict[str, dict[str, int]] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)
    whole: dict[str, tuple[Path, Ended]] = field(default_factory=dict)
    halves: dict[str, Path] = field(default_factory=dict)

    def family(self, name: str) -> Any:
        if name not in self.made:
            self.made[name] = self.makers.make(name)
        return self.made[name]

    def fresh(self, name: str) -> Path:
        """A new folder for a run."""
        place = self.folder / "runs" / f"{name}-{len(list((self.folder / 'runs').glob('*')))}-{random.getrandbits(24)}"
        place.mkdir(parents=True)
        return place / "run"

    def run(
        self,
        name: str,
        output: Path,
        fault: dict[str, Any] | None = None,
        *more: str,
        after: float | None = None,
        number: int = 9,
        lane: int = 0,
    ) -> Ended:
        """The family's command with this output, and this accident on its way."""
        argv = [*self.family(name).arguments, "--output", str(output), *more]
        return self.hosts[lane].run(argv, fault or {}, output, after, number)

    def undisturbed(self, name: str) -> tuple[Path, Ended]:
        """The family's run to which nothing happens, once for all tests."""
        if name not in self.whole:
            output = self.fresh(name)
            ended = self.run(name, output, {"kind": "count"})
            assert ended.code == 0, ended.said
            self.whole[name] = (output, ended)
        return self.whole[name]

    def stopped(self, name: str) -> Path:
        """A copy of a run that was stopped by SIGTERM after step 7, with checkpoints of steps 6 and 7."""
        if name not in self.halves:
            self.halves[name] = self.fresh(name)
            ended = self.run(name, self.halves[name], {"kind": "signal_step", "step": 7, "number": 15})
            assert ended.code == 130, ended.said
        output = self.fresh(name)
        shutil.copytree(self.halves[name], output)
        return output

    def steps(self, name: str) -> int:
        """Updates of the family's whole run."""
        output, _ = self.undisturbed(name)
        return int(json.loads((output / "result.json").read_bytes())["metrics"]["steps"])

    def survived(self, fault: str, family: str, times: int = 1) -> None:
        """For the page: a run of this family met with this fault so often, and ended as it should."""
        counts = self.record.setdefault(fault, {})
        counts[family] = counts.get(family, 0) + times

    def same(self, one: Path, other: Path) -> bool:
        """Whether two runs left the same bundle to the byte, the same figures and the same metrics, clocks left out."""
        mine, theirs = left_by(one), left_by(other)
        for name in sorted({*mine, *theirs}):
            if mine.get(name) != theirs.get(name):
                print(f"{one} and {other} differ in {name}:\n{mine.get(name)}\n{theirs.get(name)}")
        return mine == theirs

    def in_lanes(self, work: Any) -> list[Any]:
        """work(lane) in every lane at once."""
        with ThreadPoolExecutor(len(self.hosts)) as pool:
            return list(pool.map(work, range(len(self.hosts))))


def left_by(run: Path) -> dict[str, Any]:
    """All that a run leaves and that does not depend on the clock."""
    files = [file for file in sorted(run.iterdir()) if file.is_file() and file.name not in NOT_BUNDLE]
    assert any(file.suffix == ".safetensors" for file in files), files
    found: dict[str, Any] = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    found["result"] = _timeless(json.loads((run / "result.json").read_bytes())["metrics"])
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    found["metrics"] = [_timeless(json.loads(line)) for line in lines]
    return found


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if "second" not in key}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Two hosts, and everything small that the families need; in memory where the system has a folder for that, since kill -9
    does not reach what was written, and syncing some thousand files to a disk takes minutes."""
    began = time.monotonic()
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 1 << 29
    folder = Path(tempfile.mkdtemp(prefix="faults-", dir=memory if roomy else tmp_path_factory.mktemp("faults")))
    hosts = [Host(folder) for _ in range(min(2, os.cpu_count() or 1))]
    (folder / "families").mkdir()
    made = Lab(folder, hosts, runpy.run_path(str(HERE / "families.py"))["Makers"](folder / "families"))
    for host in hosts:
        host.wait()
    yield made
    for host in hosts:
        host.close()
    shutil.rmtree(folder, ignore_errors=True)
    report = request.config.getoption("--faults-report", default=None)
    if report:
        write_record(Path(report), made.record, time.monotonic() - began)


def write_record(path: Path, record: dict[str, dict[str, int]], seconds: float) -> None:
    """Write what survived. A run of all replaces what stands in the file; a run of some tests adds their counts and its date,
    and leaves the seconds and the machine, which are those of the last run of all."""
    before = json.loads(path.read_bytes()) if path.exists() else {"survived": {}}
    names = sorted({*before["survived"], *record})
    facts = {
        "survived": {
            name: before["survived"].get(name, {}) | dict(sorted(record.get(name, {}).items())) for name in names
        },
        "families": FAMILY_NAMES,
        "seconds": round(seconds, 1),
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "python": platform.python_version(),
    }
    if {*before["survived"]} - {*record}:
        facts |= {name: before[name] for name in ("seconds", "date", "machine", "python")}
        facts["added"] = time.strftime("%Y-%m-%d")
    path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--faults-report", metavar="FILE", default=None, help="write what survived, for the page of faults"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of this folder carries the marker."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.faults)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `name` runs once for each family."""
    if "name" in metafunc.fixturenames and metafunc.definition.path.is_relative_to(HERE):
        metafunc.parametrize("name", FAMILY_NAMES)
