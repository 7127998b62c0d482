"""When a stage must run again: a hash of everything that decides what it makes.

That is its kind and config (but not when its training is saved), the fingerprints of the stages or bundles that it is given,
those of its sources, the seed and the number of threads. Not the device: a run may be finished on another machine.
The parts are kept beside the hash, so that a stale stage can say what has changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duihua.data.source import SourceConfig
from duihua.errors import BundleError, DuihuaError
from duihua.files import read_json, sha256_file, sha256_json
from duihua.report.recipe import PlannedStage
from duihua.stages.data_state import changed_sources, data_fingerprints, newest_checkpoint, refuse_changed
from duihua.stages.execution import is_finished
from duihua.training.config import deciding

FORMAT = 1
FINGERPRINT_FILE = "fingerprint.json"


class Fingerprints:
    """Fingerprints of the stages of one run; a source that several stages use is opened once."""

    def __init__(self, data_directory: Path, seed: int, threads: int) -> None:
        self.data_directory, self.seed, self.threads = data_directory, seed, threads
        self._sources: dict[SourceConfig, str] = {}
        self.stages: dict[str, str] = {}
        self.data: dict[str, dict[str, str]] = {}

    def another(self) -> Fingerprints:
        """An empty one that hashes no source twice."""
        made = Fingerprints(self.data_directory, self.seed, self.threads)
        made._sources = self._sources
        return made

    def parts(self, planned: PlannedStage, keep_data: Path | None = None) -> dict[str, Any]:
        """Everything that the fingerprint of a stage is made of, as plain JSON. Earlier stages must have theirs.

        keep_data: the stage's folder where changed data is accepted: if nothing but the data differs from what stands there,
        the parts are those. `data` has the present hashes either way.
        """
        self.data[planned.name] = data_fingerprints(planned.config, self.data_directory, self._sources)
        inputs = {
            role: bundle_fingerprint(given) if isinstance(given, Path) else self.stages[given]
            for role, given in planned.inputs.items()
        }
        parts = {
            "format": FORMAT,
            "stage": planned.stage.name,
            "config": deciding(planned.config),
            "inputs": inputs,
            "data": dict(self.data[planned.name]),
            "seed": self.seed,
            "threads": self.threads,
        }
        stored = stored_parts(keep_data) if keep_data is not None else None
        return stored if stored is not None and only_data_differs(stored, parts) else parts

    def add(self, planned: PlannedStage, keep_data: Path | None = None) -> tuple[str, dict[str, Any]]:
        """The fingerprint of a stage and its parts (see `parts`); remembered for the stages after it."""
        parts = self.parts(planned, keep_data)
        fingerprint = sha256_json(parts)
        self.stages[planned.name] = fingerprint
        return fingerprint, parts


def stored_parts(folder: Path) -> dict[str, Any] | None:
    """What the stage in a folder was begun with, or None where that is not known."""
    try:
        found = read_json(folder / FINGERPRINT_FILE)["parts"]
    except (DuihuaError, KeyError, TypeError, NotADirectoryError):
        return None
    return found if isinstance(found, dict) else None


def only_data_differs(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether two sets of parts are the same but for the content of their data."""
    return {**before, "data": None} == {**after, "data": None}


@dataclass(frozen=True)
class Marks:
    """What a run's stages are made from. stages: name -> (fingerprint, parts); data: name -> hashes of its sources as they are
    now, which the parts do not hold where changed data is accepted."""

    stages: dict[str, tuple[str, dict[str, Any]]]
    data: dict[str, dict[str, str]]


def marks_of(
    stages: Sequence[PlannedStage],
    folders: Mapping[str, Path],
    prints: Fingerprints,
    accept_changed_data: bool = False,
) -> Marks:
    """The fingerprints of a run's stages, in order; folders: name -> where the stage is or will be.

    Where nothing but the content of the data has changed under a training that has checkpoints and has not ended (under
    itself, or under the stages that it builds on), going on is refused with a DataError, and nothing is touched. With
    accept_changed_data such stages keep the fingerprint that they had.
    """
    as_before = prints.another()
    now: dict[str, tuple[str, dict[str, Any]]] = {}
    before: dict[str, tuple[str, dict[str, Any]]] = {}
    changed: set[str] = set()
    for planned in stages:
        name, folder = planned.name, folders[planned.name]
        now[name], before[name] = prints.add(planned), as_before.add(planned, keep_data=folder)
        changed.update(changed_sources(before[name][1]["data"], now[name][1]["data"]))
        stored = stored_parts(folder)
        held = stored is not None and now[name][0] != before[name][0] == sha256_json(stored)
        step = newest_checkpoint(folder) if held and not is_finished(folder) else None
        if step is not None and not accept_changed_data:
            refuse_changed(sorted(changed), folder, step)
    return Marks(before if accept_changed_data else now, prints.data)


def bundle_fingerprint(directory: Path) -> str:
    """Hash of the files at the top of a directory. Raises BundleError when it is none."""
    if not directory.is_dir():
        raise BundleError("no such directory", where=str(directory), remedy="Check the path of the bundle")
    files = sorted(file for file in directory.iterdir() if file.is_file() and not file.name.startswith("."))
    return sha256_json({file.name: sha256_file(file) for file in files})


def what_changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The differences of two sets of parts, one text each: `config.steps: 100 -> 50`.

    Settings that only one of the two has, since they were made by two versions of the program, come last; those that are off
    where they were added are told only where nothing else differs.
    """
    found = list(_changes(before, after, ""))
    return [text for rank in (0, 1) for found_rank, text in found if found_rank == rank] or [text for _, text in found]


def _changes(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str) -> Iterator[tuple[int, str]]:
    """(0 for a change, 1 for what only one of the two has, 2 for what was added and is off; the text)."""
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        path = f"{prefix}{key}"
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _changes(old, new, f"{path}.")
        elif prefix in ("inputs.", "data."):
            yield 0, f"{path}: {'added' if old is None else 'removed' if new is None else 'changed'}"
        else:
            rank = 0 if key in before and key in after else 1 if key in before or new else 2
            yield rank, f"{path}: {old} -> {new}" if max(len(str(old)), len(str(new))) <= 40 else f"{path}: changed"
