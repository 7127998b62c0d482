"""Loss curves of a run: every stage's metrics.jsonl, training thin and smoothed, held-out as points."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from duihua.errors import DataError
from duihua.report.figures import smooth, thin
from duihua.report.inside.picture import Picture
from duihua.report.inside.style import ACCENT, LINE, WARM, Language, canvas, pick, plain
from duihua.report.inside.subject import Subject
from duihua.report.run_record import finite, read_metrics
from duihua.report.texts import TEXTS, Text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = Text("Loss during training", "训练过程中的损失")
STEP, LOSS = Text("step", "步数"), Text("loss", "损失")
TRAINING, HELDOUT = Text("training", "训练"), Text("held out", "留出")
NOTE = Text(
    "Thin: as recorded; thick: moving average. The units differ between stages (nats a token, a pair, ...): compare "
    "within a chart.",
    "细线：原始记录；粗线：滑动平均。不同阶段的单位不同（每词元、每对……的纳特），请只在同一图内比较。",
)
HELDOUT_NAMES = ("heldout_loss", "validation_loss")


def data(subject: Subject) -> dict[str, Any]:
    """stages: name -> {"loss": [[step, value]], "heldout": [[step, value]]}. DataError where no file holds a loss."""
    stages: dict[str, Any] = {}
    for name, path in subject.metrics.items():
        rows, _ = read_metrics(path)
        losses = _points(rows, ("loss",))
        if losses:
            stages[name] = {"loss": losses, "heldout": _points(rows, HELDOUT_NAMES)}
    if not stages:
        raise DataError(
            "no loss was recorded",
            where=", ".join(map(str, subject.metrics.values())),
            remedy="Choose a folder of a training stage",
        )
    return {"stages": stages}


def _points(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[list[float]]:
    """[step, value] where a row has one of the names."""
    points = []
    for row in rows:
        step = finite(row.get("step"))
        value = next((finite(row[name]) for name in names if name in row), None)
        if step is not None and value is not None:
            points.append([step, value])
    return points


def draw(found: dict[str, Any], language: Language) -> Figure:
    """One chart a stage."""
    stages = found["stages"]
    across = min(3, len(stages))
    down = math.ceil(len(stages) / across)
    figure = canvas(max(5.5, 4.0 * across), 2.7 * down, pick(TITLE, language), pick(NOTE, language))
    grid = figure.subplots(down, across, squeeze=False)
    for axes in grid.flat[len(stages) :]:
        axes.set_axis_off()
    for axes, (name, points) in zip(grid.flat, stages.items(), strict=False):
        loss = [(step, value) for step, value in points["loss"]]
        many = len(loss) >= 30
        axes.plot(*zip(*thin(loss), strict=True), color=ACCENT, linewidth=0.9 if many else 1.6, alpha=0.45 if many else 1.0,
                  label=None if many else pick(TRAINING, language))  # fmt: skip
        if many:
            axes.plot(*zip(*thin(smooth(loss)), strict=True), color=ACCENT, label=pick(TRAINING, language))
        if points["heldout"]:
            axes.plot(
                *zip(*points["heldout"], strict=True),
                color=WARM,
                marker="o",
                markersize=3,
                linewidth=1.1,
                label=pick(HELDOUT, language),
            )
        title = TEXTS.get(f"stage.{name}")
        axes.set_title(pick(title, language) if title else plain(name), pad=6)
        axes.set_xlabel(pick(STEP, language))
        axes.set_ylabel(pick(LOSS, language))
        axes.yaxis.grid(True, color=LINE)
        axes.legend()
    return figure


PICTURE = Picture(
    "loss-curves",
    Text("loss over the steps of a run", "一次运行中损失随步数的变化"),
    data,
    draw,
    needs="metrics",
)
