"""Whether the data under a training is still what it was when the training began.

Why it is refused when it is not: a checkpoint says "the ninth row of the third epoch", and in a file that was edited meanwhile
that is another row. Going on would give a model that belongs to neither file, and nobody would know. Which of the three
ways out is right only the user can tell, so the error names them: put the file back, train anew somewhere else, or go on with
the new content knowingly.

The hashes of the sources (their content, not their time) stand in `data.json` beside the checkpoints. They are compared
before a stage goes on, and once more when it ends, since a file can also change while a process reads it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from duihua import console
from duihua.data.source import SourceConfig, open_source
from duihua.errors import DataError, DuihuaError
from duihua.files import read_json, sha256_file, write_json
from duihua.stages.context import RESULT_FILE, StageContext

DATA_FILE = "data.json"
FLAG = "--accept-changed-data"
REMEDY = (
    f"Put the old content back to go on as before, train anew with another --output, or add {FLAG} to go on from the "
    "checkpoint with the new content"
)


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


def source_label(source: SourceConfig) -> str:
    """What a source is called in a record."""
    text = source.name or source.path or source.hub
    return f"{text}, first {source.limit}" if source.limit else text


def data_fingerprints(
    config: Any, data_directory: Path, known: MutableMapping[SourceConfig, str] | None = None
) -> dict[str, str]:
    """Label -> hash of the content, of all sources of a stage's config and of the other files that it names (a config with a
    method `data_files`). known: hashes that were taken before, added to."""
    known = {} if known is None else known
    found: dict[str, str] = {}
    for source in sources_in(config):
        if source not in known:
            known[source] = open_source(source, data_directory).fingerprint()
        found[source_label(source)] = known[source]
    files: tuple[Path, ...] = config.data_files() if hasattr(config, "data_files") else ()
    return found | {str(file): sha256_file(file) for file in files if file.is_file()}


def changed_sources(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of the sources that are in both and differ, or in one of them alone."""
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))


def newest_checkpoint(directory: Path) -> int | None:
    """The latest step of which a stage's folder has a checkpoint, or None."""
    steps = [path.name.rpartition("-")[2] for path in directory.rglob("checkpoints/step-*")]
    return max((int(step) for step in steps if step.isdigit()), default=None)


def refuse_changed(names: list[str], directory: Path, step: int) -> None:
    """Raise DataError: these sources are not what the checkpoint of `step` was trained on."""
    raise DataError(
        f"{', '.join(names)} changed since this training began, and it has come to step {step}",
        where=str(directory),
        remedy=REMEDY,
    )


class DataState:
    """The hashes of a stage's data, compared with those that its checkpoints were made from."""

    def __init__(self, config: Any, context: StageContext) -> None:
        self.config, self.context = config, context
        given = context.data
        self.now = dict(given) if given is not None else data_fingerprints(config, context.data_directory)
        self.file = context.directory / DATA_FILE

    def before(self) -> None:
        """To call before the stage runs. Raises DataError where there are checkpoints of other data, unless the context
        accepts that; then it is written down."""
        if not self.now:
            return
        accepted: list[Any] = []
        step = newest_checkpoint(self.context.directory)
        stored = self._stored() if step is not None else {}
        if step is not None and stored:
            accepted = list(stored.get("accepted", []))
            changed = changed_sources(stored.get("data", {}), self.now)
            if changed and not self.context.accept_changed_data:
                refuse_changed(changed, self.context.directory, step)
            if changed:
                console.warn(f"{', '.join(changed)} changed; going on from step {step} with the new content, as asked")
                accepted.append({"step": step, "changed": changed, "before": stored.get("data", {})})
        write_json(self.file, {"data": self.now, **({"accepted": accepted} if accepted else {})})

    def after(self) -> None:
        """To call when the stage has ended. Raises DataError where the data changed meanwhile; the result is taken away then,
        so that the same command measures again from the last checkpoint."""
        if not self.now:
            return
        changed = changed_sources(self.now, data_fingerprints(self.config, self.context.data_directory))
        if changed and self.context.accept_changed_data:
            console.warn(f"{', '.join(changed)} changed while the stage ran")
        elif changed:
            (self.context.directory / RESULT_FILE).unlink(missing_ok=True)
            raise DataError(
                f"{', '.join(changed)} changed while the stage ran",
                where=str(self.context.directory),
                remedy=REMEDY,
            )

    def _stored(self) -> Mapping[str, Any]:
        try:
            found = read_json(self.file)
        except DuihuaError:  # a folder of an older version has none
            return {}
        return found if isinstance(found, dict) else {}
