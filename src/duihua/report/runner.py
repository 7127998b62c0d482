"""Runs a recipe: its stages in order, each once, whatever interrupts it.

A stage's folder holds `fingerprint.json`, written before the stage starts, and `result.json`, written by the stage as its
last act. Together they say all that the next attempt must know:

    fingerprint as now, result stands      finished: skipped
    fingerprint as now, no result          unfinished: run again in the folder; the stage goes on from its checkpoints
    another fingerprint, nothing made      new: run in the folder
    another fingerprint, or none           stale: named, moved to RUN/old/, run in a new folder
    the same but for the data's content,
      in the middle of a training          refused, with the choice (stages/data_state.py); nothing is touched

Each of the two files appears whole or not at all, a folder moves by one rename, so there is no moment at which kill -9
leaves a state that the table does not know. Stages run in this process: torch is imported once, and each stage is
seeded anew (stages/execution.py), so that it does not matter which of them ran before it.
"""

from __future__ import annotations

import gc
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from duihua.config import to_mapping
from duihua.config.mapping import suggestion
from duihua.console import counted, duration, say
from duihua.cores import usable_cores
from duihua.errors import ConfigError
from duihua.files import remove_leftovers, sync_directory, write_json
from duihua.interrupts import signals_wait
from duihua.models.device import check_device
from duihua.report.fingerprint import FINGERPRINT_FILE, Fingerprints, marks_of
from duihua.report.lock import LOCK_FILE, only_run
from duihua.report.machine import machine, versions
from duihua.report.recipe import PlannedStage, Recipe
from duihua.report.recipe_cost import RecipeCost, compared, cost_line, foretold, rest_line
from duihua.report.run_log import RUN_FILE, RunLog, now
from duihua.report.settings_line import defaults_of, settings_line
from duihua.report.stage_state import bundle_sizes, stage_state
from duihua.stages.context import RESULT_FILE, StageContext, StageResult
from duihua.stages.execution import execute

OLD = "old"


@dataclass(frozen=True)
class RunOutcome:
    """What a run left: its directory, what became of each stage ("skipped", "finished") and whether all are done."""

    directory: Path
    stages: dict[str, str]
    complete: bool
    summary: dict[str, Any]


def run_recipe(
    recipe: Recipe,
    directory: Path,
    data_directory: Path,
    *,
    device: str = "cpu",
    until: str | None = None,
    command: Sequence[str] = (),
    accept_changed_data: bool = False,
) -> RunOutcome:
    """Bring `directory` to what `recipe` says, running only what is missing or stale, then write summary and report.

    until: name of the last stage to run. accept_changed_data: what has changed in the sources makes no stage stale, and a
    training goes on from its checkpoint with the new content; without it that is refused. Raises DuihuaError for what the
    user can mend, and KeyboardInterrupt, after saying how to go on, when it is stopped by Ctrl-C or SIGTERM.
    """
    names = [planned.name for planned in recipe.stages]
    if until is not None and until not in names:
        raise ConfigError(f"the recipe has no stage {until!r}", where="--until", remedy=suggestion(until, names))
    check_device(device)
    check_directory(directory)
    last = len(names) if until is None else names.index(until) + 1
    threads = recipe.threads or usable_cores()
    said = list(command) or ["duihua", *sys.argv[1:]]
    with only_run(directory), terminating_as_interrupt():
        fingerprints = Fingerprints(data_directory, recipe.seed, threads)
        folders = {name: directory / name for name in names}
        made_from = marks_of(recipe.stages[:last], folders, fingerprints, accept_changed_data)
        marks = made_from.stages
        facts = _facts(recipe, threads, device, said, marks)
        say(
            f"Run {recipe.name} in {directory}: {', '.join(names[:last])}; seed {recipe.seed}, "
            f"{counted(threads, 'thread')}, {device}"
        )
        cost = recipe.cost
        if cost is not None:
            cost = cost.on(device != "cpu" or _multiplies_bf16()) if cost.without_bf16 else cost
            say(cost_line(cost, names[:last]))
        outcome: dict[str, str] = {}
        with RunLog(directory, facts) as log:
            try:
                for number, planned in enumerate(recipe.stages[:last], 1):
                    fingerprint, parts = marks[planned.name]
                    context = StageContext(
                        directory=directory / planned.name,
                        inputs=_inputs(planned, directory),
                        data_directory=data_directory,
                        device=device,
                        seed=recipe.seed,
                        threads=threads,
                        data=made_from.data[planned.name],
                        accept_changed_data=accept_changed_data,
                    )
                    label = f"[{number}/{last}] {planned.name}"
                    outcome[planned.name] = _bring_up(planned, context, fingerprint, parts, log, label, said)
                    if cost is not None and outcome[planned.name] == "finished":
                        _say_the_rest(cost, log, list(outcome), names, last)
            except KeyboardInterrupt:
                say(f"Stopped; nothing is lost. Go on with the same command: {shlex.join(said)}")
                raise
            complete = last == len(names)
            summary = _write_up(directory, log, cost) if complete else {}
    return RunOutcome(directory, outcome, complete, summary)


def _multiplies_bf16() -> bool:
    with signals_wait():  # torch is imported
        from duihua.nn.products import bf16_is_native

        return bf16_is_native()


def _say_the_rest(cost: RecipeCost, log: RunLog, ran: Sequence[str], names: Sequence[str], last: int) -> None:
    """How long what is to run will take, and, once, in the record what the whole will."""
    done = {name: log.stage(name)["seconds"] for name in ran}
    rest = rest_line(cost, done, names[:last])
    if rest is not None:
        say(rest)
    told = foretold(cost, done, names)
    if told is not None and "foretold" not in log.record:
        log.record["foretold"] = told
        log.save()


def check_directory(directory: Path) -> None:
    """Raise ConfigError unless `directory` is new, empty, or a run's."""
    if directory.exists() and not directory.is_dir():
        raise ConfigError("is a file", where=str(directory), remedy="Choose a folder with --output")
    if directory.is_dir() and not any((directory / name).exists() for name in (RUN_FILE, LOCK_FILE)):
        first = next(iter(sorted(directory.iterdir())), None)
        if first is not None:
            raise ConfigError(
                f"holds other things than a run, such as {first.name!r}",
                where=str(directory),
                remedy="Choose a new folder with --output",
            )


def _facts(
    recipe: Recipe, threads: int, device: str, command: list[str], marks: dict[str, tuple[str, dict[str, Any]]]
) -> dict[str, Any]:
    """Everything that is known before the first stage starts: the resolved recipe and what it runs on."""
    return {
        "recipe": {"name": recipe.name, "about": dict(recipe.about)},
        "command": command,
        "seed": recipe.seed,
        "threads": threads,
        "device": _device_name(device),
        "versions": versions(),
        "machine": machine(),
        "stages": [
            {
                "name": planned.name,
                "stage": planned.stage.name,
                "directory": planned.name,
                "fingerprint": marks[planned.name][0] if planned.name in marks else None,
                "inputs": {role: str(given) for role, given in planned.inputs.items()},
                "config": to_mapping(planned.config),
            }
            for planned in recipe.stages
        ],
    }


def _device_name(device: str) -> str:
    if device == "cpu":
        return device
    import torch

    return f"{device} ({torch.cuda.get_device_name(device)})"


def _inputs(planned: PlannedStage, directory: Path) -> dict[str, Path]:
    """Role -> directory of the bundle."""
    found: dict[str, Path] = {}
    for role, given in planned.inputs.items():
        if isinstance(given, Path):
            found[role] = given
        else:
            result = StageResult.load(directory / given)
            found[role] = result.bundle or directory / given
    return found


def _bring_up(
    planned: PlannedStage,
    context: StageContext,
    fingerprint: str,
    parts: dict[str, Any],
    log: RunLog,
    label: str,
    command: list[str],
) -> str:
    """Skip, resume or run one stage; "skipped" or "finished"."""
    folder = context.directory
    remove_leftovers(folder)  # also of a stage that is done: a kill may have met its very last write
    state, reasons = stage_state(folder, fingerprint, parts)
    if state == "finished":
        say(f"{label}: unchanged, skipped")
        log.end(planned.name, "finished")
        return "skipped"
    log.begin_work(command)
    log.begin(planned.name, fresh=state != "unfinished")
    if state == "stale":
        kept = _move_aside(folder)
        why = "; ".join(reasons[:4]) + (f" and {len(reasons) - 4} more" if len(reasons) > 4 else "")
        say(f"{label}: stale ({why}); the old one is kept in {kept}")
        log.record["moved_aside"].append(
            {"stage": planned.name, "directory": f"{OLD}/{kept.name}", "why": reasons, "when": now()}
        )
    if state == "unfinished":
        say(f"{label}: going on ({'; '.join(reasons)})")
        (folder / RESULT_FILE).unlink(missing_ok=True)
    else:
        folder.mkdir(exist_ok=True)
        write_json(folder / FINGERPRINT_FILE, {"fingerprint": fingerprint, "parts": parts})
        sync_directory(folder.parent)
        say(f"{label}: {settings_line(parts['config'], defaults_of(planned.config))}")
    before = log.stage(planned.name)["seconds"]
    try:
        result = execute(planned.stage, planned.config, context)
        result.save(folder)
        files = bundle_sizes(result)
        write_json(folder / FINGERPRINT_FILE, {"fingerprint": fingerprint, "parts": parts, "files": files})
        sync_directory(folder)
    except BaseException:
        log.end(planned.name, "unfinished")
        raise
    derived = (result.metrics.get("settings") or {}).get("dial")
    if derived:
        log.stage(planned.name)["derived"] = derived
    log.end(planned.name, "finished")
    _release_memory()
    say(f"{label}: done in {duration(log.stage(planned.name)['seconds'] - before)}")
    return "finished"


def _move_aside(folder: Path) -> Path:
    """Rename a stage's folder to the first free RUN/old/NAME-N."""
    old = folder.parent / OLD
    old.mkdir(exist_ok=True)
    number = 1
    while (old / f"{folder.name}-{number}").exists():
        number += 1
    kept = old / f"{folder.name}-{number}"
    os.replace(folder, kept)
    sync_directory(old)
    return kept


def _write_up(directory: Path, log: RunLog, cost: RecipeCost | None) -> dict[str, Any]:
    """summary.json and report.html. Written twice when this attempt did work, so that both hold the time they took."""
    from duihua.report.page import write_report
    from duihua.report.summary import write_summary

    if log.working:
        log.save()
        if cost is not None:
            log.record["prediction"] = compared(
                cost, log.record["minutes"], log.record["peak_memory_gib"], log.record.get("foretold")
            )
            log.save()
        write_summary(directory)
        write_report(directory)
    log.finish()
    summary = write_summary(directory)
    page = write_report(directory)
    minutes, memory = log.record["minutes"], log.record["peak_memory_gib"]
    say(f"All stages are done: {minutes:.1f} minutes, {memory:.2f} GiB of memory at most. Report: {page}")
    return summary


def _release_memory() -> None:
    """Drop what the stage left, so that peak memory is one stage's and not the sum."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def terminating_as_interrupt() -> Iterator[None]:
    """Inside, SIGTERM is the same as Ctrl-C: whoever trains saves first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
