"""run.json: the record of a run that grows while it runs, with time and memory that survive interruptions.

Why a heartbeat: a run that is killed with -9 cannot say goodbye, but its minutes were spent and its memory was needed.
So a thread looks at the memory a few times a second and writes the record every few seconds; at most that much is lost.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from duihua import console
from duihua.errors import DuihuaError
from duihua.files import read_json, write_json
from duihua.report.machine import GIB, own_peak_memory, tree_memory

RUN_FILE = "run.json"
LOOK_SECONDS = 0.2
WRITE_SECONDS = 5.0


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class RunLog:
    """The record in memory and on disk. Use as a context manager: inside, time and memory are counted.

    `facts` are written over what an earlier attempt wrote; seconds, peak memory and the start are carried on.
    """

    def __init__(self, directory: Path, facts: dict[str, Any]) -> None:
        self.path = directory / RUN_FILE
        earlier = self._read_earlier()
        known = {stage.get("name"): stage for stage in earlier.get("stages", []) if isinstance(stage, dict)}
        self.record: dict[str, Any] = {**facts}
        for stage in self.record["stages"]:
            before = known.get(stage["name"], {})
            stage["seconds"] = float(before.get("seconds") or 0.0)
            stage["peak_memory_gib"] = float(before.get("peak_memory_gib") or 0.0)
            stage["status"] = before.get("status") or "unfinished"
            if "derived" in before:
                stage["derived"] = before["derived"]
        for name in ("foretold", "prediction"):
            if name in earlier:
                self.record[name] = earlier[name]
        self.record["started"] = earlier.get("started") or now()
        self.record["other_seconds"] = float(earlier.get("other_seconds") or 0.0)
        self.record["attempts"] = list(earlier.get("attempts") or [])
        self.record["moved_aside"] = list(earlier.get("moved_aside") or [])
        self.record["finished"] = earlier.get("finished")
        self._peak = float(earlier.get("peak_memory_gib") or 0.0)
        self.record["minutes"] = float(earlier.get("minutes") or 0.0)
        self.record["peak_memory_gib"] = self._peak
        self._current: dict[str, Any] | None = None
        self._counting = False
        self._last = time.monotonic()
        self._guard = threading.RLock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="run log", daemon=True)

    def _read_earlier(self) -> dict[str, Any]:
        if not self.path.exists():
            return {}
        try:
            earlier = read_json(self.path)
        except DuihuaError:
            return {}
        return earlier if isinstance(earlier, dict) else {}

    def __enter__(self) -> RunLog:
        self._last = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._counting:
            self.save()

    def stage(self, name: str) -> dict[str, Any]:
        """The entry of a stage."""
        return next(stage for stage in self.record["stages"] if stage["name"] == name)

    @property
    def working(self) -> bool:
        """Whether this attempt has run anything."""
        return self._counting

    def begin_work(self, command: list[str]) -> None:
        """This attempt has something to do: from here on (and back to its start) its time counts."""
        with self._guard:
            if not self._counting:
                self._counting = True
                self.record["finished"] = None
                self.record["attempts"].append({"started": now(), "command": command})

    def begin(self, name: str, fresh: bool) -> None:
        """Count time and memory for this stage; `fresh` forgets what an earlier, discarded stage of the name took."""
        with self._guard:
            self._tick()
            self._current = self.stage(name)
            self._current["status"] = "unfinished"
            if fresh:
                self._current["seconds"] = self._current["peak_memory_gib"] = 0.0
            self.save()

    def end(self, name: str, status: str) -> None:
        """The stage is over for now; time counts as the run's own again."""
        with self._guard:
            self._tick()
            self.stage(name)["status"] = status
            self._current = None
            if self._counting:
                self.save()

    def finish(self) -> None:
        """All stages of the recipe are done: write the record, and count no more, so that all that is made from it agrees."""
        with self._guard:
            if self._counting or not self.record["finished"]:
                self.record["finished"] = now()
                self.save()
            self._counting = False

    def save(self) -> None:
        """Write run.json."""
        with self._guard:
            self._tick()
            seconds = self.record["other_seconds"] + sum(stage["seconds"] for stage in self.record["stages"])
            self.record["minutes"] = seconds / 60
            self.record["peak_memory_gib"] = self._peak
            write_json(self.path, self.record)

    def _tick(self) -> None:
        """Add the time since the last tick to the stage that runs, or to the run itself."""
        moment = time.monotonic()
        if self._counting:
            gone = moment - self._last
            if self._current is not None:
                self._current["seconds"] += gone
            else:
                self.record["other_seconds"] += gone
            self._last = moment

    def _look(self) -> None:
        tree = tree_memory() / GIB
        with self._guard:
            if not self._counting:
                return
            self._peak = max(self._peak, tree, own_peak_memory() / GIB)
            if self._current is not None:
                self._current["peak_memory_gib"] = max(self._current["peak_memory_gib"], tree)

    def _watch(self) -> None:
        written = time.monotonic()
        while not self._stop.wait(LOOK_SECONDS):
            self._look()
            if self._counting and time.monotonic() - written >= WRITE_SECONDS:
                written = time.monotonic()
                try:
                    self.save()
                except DuihuaError as error:  # the stage will meet the full disk itself, and say so where it matters
                    console.warn(str(error))
        self._look()
