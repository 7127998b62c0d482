"""What a training that is going on looks like from outside: its files, read while it writes them.

Nothing is asked of the process that trains; its folder says everything, so that a run on another machine, one that was killed
and one that ended years ago are watched in the same way. A last line that is only half written is read the next time.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from duihua.config import build
from duihua.errors import ConfigError, DataError, DuihuaError
from duihua.files import read_json
from duihua.report.fingerprint import FINGERPRINT_FILE
from duihua.report.run_record import finite, read_metrics
from duihua.stages import STAGES
from duihua.stages.context import RESULT_FILE
from duihua.stages.diagnosis import Finding
from duihua.stages.ppo_doctor import findings_so_far
from duihua.training.metrics_file import SAMPLE_PROMPT, SAMPLE_TEXT
from duihua.training.progress import read_plan

STALE_SECONDS = 120.0
"""Without a new line for so long, a stage without a result counts as standing still."""
SPARK = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class StageView:
    """One stage of a run as its files say it now.

    stage: the kind, name: its folder's. state: finished, running or still. steps: in all, None where nothing says it.
    seconds_left: by the mean time a step so far. losses: of the logged steps. figures: the last of each name, with
    bits_per_byte of the training text and the utilisation where the training has said what they need (training/progress.py),
    and heldout_bits_per_byte of all held-out text once the result has it.
    sample: a prompt and a reply, of the last rollout, evaluation or result. findings: of a stage that learns from rollouts what
    the doctor of PPO runs finds not as it should be, problems first.
    """

    run: str
    name: str
    stage: str
    state: str
    step: int
    steps: int | None
    seconds: float
    seconds_left: float | None
    losses: tuple[float, ...]
    figures: dict[str, float]
    sample: tuple[str, str] | None
    findings: tuple[Finding, ...] = ()

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def watched_stages(folder: Path) -> list[Path]:
    """The folders below a run, or that of the stage itself, that have figures; the one that was written to last at the end.

    Raises DataError where there are none.
    """
    require_folder(folder)
    found = [path.parent for path in (*folder.glob("metrics.jsonl"), *folder.glob("*/metrics.jsonl"))]
    if not found:
        raise DataError(
            "nothing has been logged here yet", where=str(folder), remedy="Name a run's folder, or a stage's"
        )
    return sorted(found, key=lambda stage: (stage / "metrics.jsonl").stat().st_mtime)


def require_folder(folder: Path) -> None:
    """Raise DataError where that is no folder."""
    if not folder.is_dir():
        problem = "is a file, not a folder" if folder.exists() else "no such folder"
        raise DataError(problem, where=str(folder), remedy="Name a run's folder, or a stage's")


def chosen_stage(run: Path, stage: str = "") -> Path:
    """The folder of a run's stage of that name; without one, of the stage that was written to last. Raises ConfigError,
    and DataError where nothing has been logged."""
    found = watched_stages(run)
    chosen = [folder for folder in found if folder.name == stage] if stage else found[-1:]
    if not chosen:
        raise ConfigError(
            f"{run} has no figures of {stage!r}",
            where="--stage",
            remedy=f"It has {', '.join(sorted(folder.name for folder in found))}",
        )
    return chosen[0]


def view_stage(folder: Path, run: str = "", now: float | None = None) -> StageView:
    """Read one stage's folder. now: seconds since the epoch, for the age of its last line."""
    path = folder / "metrics.jsonl"
    rows, _ = read_metrics(path)
    figures: dict[str, float] = {}
    for row in rows:
        figures |= {name: float(value) for name, value in row.items() if _is_number(value)}
    logged = [row for row in rows if _is_number(row.get("loss"))]
    step, seconds = int(figures.get("step", 0)), figures.get("seconds", 0.0)
    plan = read_plan(folder)
    steps = int(plan["steps"]) if finite(plan.get("steps")) else planned_steps(folder)
    figures = {**derived(figures, plan), **figures, **measured_at_the_end(folder)}
    left = (steps - step) * seconds / step if steps and step and seconds else None
    age = (time.time() if now is None else now) - path.stat().st_mtime
    state = "finished" if (folder / RESULT_FILE).is_file() else "running" if age < STALE_SECONDS else "still"
    return StageView(
        run=run or folder.name,
        name=folder.name,
        stage=kind_of(folder),
        state=state,
        step=step,
        steps=steps,
        seconds=seconds,
        seconds_left=None if state == "finished" else left,
        losses=tuple(float(row["loss"]) for row in logged),
        figures={name: value for name, value in figures.items() if name not in ("step", "seconds")},
        sample=last_sample(folder, rows),
        findings=tuple(sorted(findings_so_far(rows), key=lambda finding: finding.state != "problem")),
    )


def derived(figures: Mapping[str, float], plan: Mapping[str, Any]) -> dict[str, float]:
    """What follows from the logged figures and what the training is for the machine: bits per byte of the training text, and
    the share of bare matrix products' speed (model FLOPs utilisation, Chowdhery et al. 2022, appendix B)."""
    found = {}
    loss, speed = figures.get("loss"), figures.get("tokens_per_second")
    size, work = finite(plan.get("bytes_per_token")), finite(plan.get("operations_per_token"))
    peak, ranks = finite(plan.get("peak_operations_per_second")), finite(plan.get("ranks")) or 1.0
    if size and loss is not None:
        found["bits_per_byte"] = loss / math.log(2) / size
    if work and peak and speed is not None:
        found["utilisation"] = speed * work / (peak * ranks)
    return found


def measured_at_the_end(folder: Path) -> dict[str, float]:
    """Held-out bits per byte of a stage that is done: of all held-out text, where evaluations on the way read some of it."""
    try:
        found = finite(read_json(folder / RESULT_FILE)["metrics"]["bits_per_byte"]["all"])
    except (DuihuaError, KeyError, TypeError):
        return {}
    return {} if found is None else {"heldout_bits_per_byte": found}


def by_source(figures: Mapping[str, float]) -> dict[str, tuple[float | None, float | None]]:
    """Source -> its loss on training conversations and on held-out ones, for a stage that measures each source by itself."""
    names = [name.partition("/") for name in figures]
    sources = dict.fromkeys(source for name, _, source in names if source and name in ("train_loss", "heldout_loss"))
    return {source: (figures.get(f"train_loss/{source}"), figures.get(f"heldout_loss/{source}")) for source in sources}


def kind_of(folder: Path) -> str:
    """The kind of stage that wrote a folder; the folder's name where it does not say."""
    try:
        return str(read_json(folder / FINGERPRINT_FILE)["parts"]["stage"])
    except (DuihuaError, KeyError, TypeError):
        return folder.name


def planned_steps(folder: Path) -> int | None:
    """The steps that a stage will take by its config, for a training that has not said it."""
    try:
        parts = read_json(folder / FINGERPRINT_FILE)["parts"]
        config = build(STAGES[parts["stage"]].config_class(), parts["config"], parts["stage"])
    except (DuihuaError, KeyError, TypeError):
        return None
    steps = getattr(config, "steps", None)
    return steps if isinstance(steps, int) else None


def last_sample(folder: Path, rows: Sequence[Mapping[str, Any]] = ()) -> tuple[str, str] | None:
    """Prompt and reply of the newest rollout, else of the newest evaluation that wrote something (`rows`: the logged lines),
    else of the samples in the result; None where there is none of them."""
    for path in sorted((folder / "rollouts").glob("*.json"), reverse=True)[:2]:  # the newest may be half written
        try:
            samples = read_json(path)["samples"]
            return str(samples[0]["prompt"]), str(samples[0]["text"])
        except (DuihuaError, KeyError, IndexError, TypeError):
            continue
    for row in reversed(rows):
        if SAMPLE_PROMPT in row and SAMPLE_TEXT in row:
            return str(row[SAMPLE_PROMPT]), str(row[SAMPLE_TEXT])
    try:
        first = read_json(folder / RESULT_FILE)["metrics"]["samples"][0]
        said = first.get("text_after", first.get("reply", first.get("after", "")))
        return (str(first["prompt"]), str(said)) if said else None
    except (DuihuaError, KeyError, IndexError, TypeError, AttributeError):
        return None


def sparkline(values: tuple[float, ...], width: int = 40) -> str:
    """The course of some numbers in a line of blocks, each the mean of its share of them; empty for none."""
    kept = [value for value in values if math.isfinite(value)]
    if not kept:
        return ""
    width = min(width, len(kept))
    shares = [kept[i * len(kept) // width : (i + 1) * len(kept) // width] for i in range(width)]
    means = [sum(share) / len(share) for share in shares]
    low, high = min(means), max(means)
    span = high - low
    return "".join(SPARK[round((mean - low) / span * (len(SPARK) - 1)) if span else 0] for mean in means)


class Tail:
    """The lines of a metrics.jsonl as they come: each `read` gives the rows that are new and whole."""

    def __init__(self, path: Path) -> None:
        self.path, self._place = path, 0

    def read(self) -> list[Mapping[str, Any]]:
        """What has been added since; everything again where the file was made shorter (a run that went back)."""
        if self.path.stat().st_size < self._place:
            self._place = 0
        with open(self.path, "rb") as file:
            file.seek(self._place)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._place += len(whole)
        rows: list[Mapping[str, Any]] = []
        for line in whole.decode("utf-8", errors="replace").split("\n"):
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(row, dict) and _is_number(row.get("step")):
                rows.append(row)
        return rows


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
