"""The tiny recipe, run once from the command line; the tests of this folder share the finished run.

They start `duihua` as a person does, in a process of its own, with one thread, and with a data folder that is empty.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
STAGES = ("tokenizer", "pretrain", "sft", "reward", "ppo", "evaluate")
# These hold times, settings, and how fast the machine was measured to be.
NOT_BUNDLE = ("fingerprint.json", "result.json", "settings.json", "metrics.jsonl", "progress.json")


@dataclass(frozen=True)
class Finished:
    """A command that has ended. seconds: from its first line of output to its end."""

    code: int
    out: str
    err: str
    seconds: float


@dataclass(frozen=True)
class Started:
    """A command that runs, at the head of its own process group, its output in files."""

    process: subprocess.Popen[bytes]
    out_file: Path
    err_file: Path

    @property
    def out(self) -> str:
        """What it has written to standard output so far."""
        return self.out_file.read_text(encoding="utf-8")

    @property
    def err(self) -> str:
        """What it has written to standard error so far."""
        return self.err_file.read_text(encoding="utf-8")

    def send(self, number: int) -> None:
        """Send a signal to it and to all that it has started."""
        os.killpg(self.process.pid, number)

    def wait_for_output(self, end: str = "\n", seconds: float = 120.0) -> str:
        """Its standard output, when that ends so, or when the command has ended."""
        until = time.monotonic() + seconds
        while self.process.poll() is None and not self.out.endswith(end):
            assert time.monotonic() < until, f"waited in vain: {self.out}{self.err}"
            time.sleep(0.01)
        return self.out

    def close(self) -> None:
        """End it, if it still runs."""
        if self.process.poll() is None:
            self.send(signal.SIGKILL)
            self.process.wait()


@dataclass(frozen=True)
class Road:
    """Starts `duihua` in a folder of its own, with one thread, an empty data folder and output that is not held back."""

    folder: Path

    def recipe(self, output: str, *more: str) -> list[str]:
        """The command for the tiny recipe."""
        return ["run", str(RECIPE), "--set", "threads=1", "--output", output, *more]

    def start(self, arguments: Sequence[str]) -> Started:
        """Start a command."""
        name = f"output-{time.monotonic_ns()}"
        out_file, err_file = self.folder / f"{name}.out", self.folder / f"{name}.err"
        here = {"OMP_NUM_THREADS": "1", "DUIHUA_HOME": str(self.folder / "home"), "PYTHONUNBUFFERED": "1"}
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # else one that is ignored here is so there
        try:
            with open(out_file, "wb") as out, open(err_file, "wb") as err:
                process = subprocess.Popen(
                    [sys.executable, "-m", "duihua", *arguments],
                    cwd=self.folder,
                    env={**os.environ, **here},
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    start_new_session=True,
                )
        finally:
            signal.signal(signal.SIGINT, before)
        return Started(process, out_file, err_file)

    def run(self, arguments: Sequence[str], stop_with: int | None = None, stop_after: float = 0.0) -> Finished:
        """Run a command to its end, or send it a signal, that many seconds after its first line."""
        started = self.start(arguments)
        try:
            started.wait_for_output()
            began = time.monotonic()
            if stop_with is not None:
                try:
                    started.process.wait(stop_after)
                except subprocess.TimeoutExpired:
                    started.send(stop_with)
            code = started.process.wait(300)
            return Finished(code, started.out, started.err, time.monotonic() - began)
        finally:
            started.close()

    def bundles(self, run: Path) -> dict[str, str]:
        """`stage/file` -> hash, of every file of every bundle of a run."""
        return {
            f"{stage}/{file.name}": hashlib.sha256(file.read_bytes()).hexdigest()
            for stage in STAGES
            for file in sorted((run / stage).iterdir())
            if file.is_file() and file.name not in NOT_BUNDLE
        }


@dataclass(frozen=True)
class TinyRun:
    """The finished run, and how it went."""

    directory: Path
    finished: Finished
    road: Road

    def metrics(self, stage: str) -> dict[str, object]:
        """What a stage measured."""
        found: dict[str, object] = json.loads((self.directory / stage / "result.json").read_bytes())["metrics"]
        return found


@pytest.fixture
def road(tmp_path: Path) -> Road:
    """A place for runs of one test."""
    return Road(tmp_path)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """The tiny recipe, not interrupted. Tests read it and change nothing in it."""
    road = Road(tmp_path_factory.mktemp("road"))
    finished = road.run(road.recipe("tiny"))
    assert finished.code == 0, finished.out + finished.err
    return TinyRun(road.folder / "tiny", finished, road)
