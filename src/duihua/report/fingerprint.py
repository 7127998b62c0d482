"""When a stage must run again: a hash of everything that decides what it makes.

That is its kind and config, the fingerprints of the stages or bundles that it is given, the fingerprints of its sources,
the seed and the number of threads. Not the device: a run may be finished on another machine. The parts are kept beside
the hash, so that a stale stage can say what has changed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from duihua.config import to_mapping
from duihua.data.source import SourceConfig, open_source
from duihua.errors import BundleError
from duihua.files import sha256_file, sha256_json
from duihua.report.recipe import PlannedStage

FORMAT = 1


def sources_in(value: Any) -> Iterator[SourceConfig]:
    """Every SourceConfig at any depth of a config."""
    if isinstance(value, SourceConfig):
        yield value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from sources_in(getattr(value, field.name))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from sources_in(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from sources_in(item)


class Fingerprints:
    """Fingerprints of the stages of one run; a source that several stages use is opened once."""

    def __init__(self, data_directory: Path, seed: int, threads: int) -> None:
        self.data_directory, self.seed, self.threads = data_directory, seed, threads
        self._sources: dict[SourceConfig, str] = {}
        self.stages: dict[str, str] = {}

    def parts(self, planned: PlannedStage) -> dict[str, Any]:
        """Everything that the fingerprint of a stage is made of, as plain JSON. Earlier stages must have theirs."""
        sources = {_source_label(source): self._source(source) for source in sources_in(planned.config)}
        inputs = {
            role: bundle_fingerprint(given) if isinstance(given, Path) else self.stages[given]
            for role, given in planned.inputs.items()
        }
        return {
            "format": FORMAT,
            "stage": planned.stage.name,
            "config": to_mapping(planned.config),
            "inputs": inputs,
            "data": sources,
            "seed": self.seed,
            "threads": self.threads,
        }

    def add(self, planned: PlannedStage) -> tuple[str, dict[str, Any]]:
        """The fingerprint of a stage and its parts; remembered for the stages after it."""
        parts = self.parts(planned)
        fingerprint = sha256_json(parts)
        self.stages[planned.name] = fingerprint
        return fingerprint, parts

    def _source(self, source: SourceConfig) -> str:
        if source not in self._sources:
            self._sources[source] = open_source(source, self.data_directory).fingerprint()
        return self._sources[source]


def _source_label(source: SourceConfig) -> str:
    text = source.name or source.path or source.hub
    return f"{text}, first {source.limit}" if source.limit else text


def bundle_fingerprint(directory: Path) -> str:
    """Hash of the files at the top of a directory. Raises BundleError when it is none."""
    if not directory.is_dir():
        raise BundleError("no such directory", where=str(directory), remedy="Check the path of the bundle")
    files = sorted(file for file in directory.iterdir() if file.is_file() and not file.name.startswith("."))
    return sha256_json({file.name: sha256_file(file) for file in files})


def what_changed(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The differences of two sets of parts, one text each: `config.steps: 100 -> 50`."""
    changes: list[str] = []
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        path = f"{prefix}{key}"
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            changes += what_changed(old, new, f"{path}.")
        elif prefix in ("inputs.", "data."):
            changes.append(f"{path}: {'added' if old is None else 'removed' if new is None else 'changed'}")
        elif max(len(str(old)), len(str(new))) <= 40:
            changes.append(f"{path}: {old} -> {new}")
        else:
            changes.append(f"{path}: changed")
    return changes
