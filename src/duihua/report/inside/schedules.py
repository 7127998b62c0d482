"""Learning-rate schedules side by side: StepLR, Noam, warm-up and cosine, linear, plateau, WSD.

The curves come from the functions that train (training/schedules.py), not from formulas of this picture. The plateau
follows a loss, so it is shown on a made-up one that stops falling three times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from duihua.report.inside.picture import Picture
from duihua.report.inside.style import ACCENT, LINE, SOFT, WARM, Language, canvas, pick
from duihua.report.inside.subject import Subject
from duihua.report.texts import Text
from duihua.training.config import ScheduleConfig
from duihua.training.schedules import Plateau, rate_factor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS = 200
SCHEDULES: dict[str, tuple[Text, ScheduleConfig]] = {
    "step": (
        Text("StepLR: × 0.5 every 50 steps", "StepLR：每 50 步乘以 0.5"),
        ScheduleConfig(kind="step", warmup_steps=0, gamma=0.5, step_size=50),
    ),
    "noam": (
        Text("Noam: warm-up, then 1/√step", "Noam：预热后按 1/√步数下降"),
        ScheduleConfig(kind="noam", warmup_steps=20),
    ),
    "cosine": (
        Text("warm-up and cosine", "预热 + 余弦"),
        ScheduleConfig(kind="cosine", warmup_steps=20),
    ),
    "linear": (
        Text("warm-up and linear", "预热 + 线性"),
        ScheduleConfig(kind="linear", warmup_steps=20),
    ),
    "plateau": (
        Text("plateau: × 0.5 when the loss stops falling", "plateau：损失不再下降时乘以 0.5"),
        ScheduleConfig(kind="plateau", warmup_steps=0, gamma=0.5, step_size=2, patience=5, threshold=1e-3),
    ),
    "wsd": (
        Text("WSD: warm-up, stable, decay", "WSD：预热、稳定、衰减"),
        ScheduleConfig(kind="wsd", warmup_steps=20, decay_fraction=0.3),
    ),
}
TITLE = Text("Learning-rate schedules", "学习率调度")
STEP, FACTOR, LOSS = (
    Text("step", "步数"),
    Text("factor on the rate", "学习率系数"),
    Text("loss (made up)", "损失（示例）"),
)
NOTE = Text(
    "Drawn by the functions that the trainer calls. StepLR is the articles' example; GPT-1 and most models since use "
    "a warm-up with "
    "a cosine, the first Transformer used Noam.",
    "曲线由训练器实际调用的函数绘制。StepLR 是文章中的例子；GPT-1 及之后的多数模型使用预热加余弦，最初的 Transformer "
    "使用 Noam。",
)


def data(_subject: Subject) -> dict[str, Any]:
    """steps, and for each schedule its factors; for plateau the loss too."""
    curves: dict[str, list[float]] = {}
    for name, (_, config) in SCHEDULES.items():
        if name != "plateau":
            curves[name] = [round(rate_factor(step, STEPS, config), 6) for step in range(STEPS)]
    losses = [_loss(step) for step in range(STEPS)]
    plateau, factors = Plateau(SCHEDULES["plateau"][1]), []
    for loss in losses:
        factors.append(plateau.factor)
        plateau.observe(loss, 1.0)
    return {"steps": STEPS, "factors": {**curves, "plateau": factors}, "plateau_loss": losses}


def _loss(step: int) -> float:
    """Falls for 30 steps after every 50th, then stays."""
    whole, rest = divmod(step, 50)
    return round(float(4 * 0.6 ** (whole + min(rest, 30) / 30)), 4)


def draw(found: dict[str, Any], language: Language) -> Figure:
    """Six small charts with one scale."""
    figure = canvas(9.6, 4.6, pick(TITLE, language), pick(NOTE, language))
    grid = figure.subplots(2, 3, sharex=True, sharey=True)
    for axes, (name, (title, _)) in zip(grid.flat, SCHEDULES.items(), strict=True):
        factors = found["factors"][name]
        jumps = name in ("step", "plateau")
        axes.plot(range(len(factors)), factors, color=ACCENT, drawstyle="steps-post" if jumps else "default")
        axes.fill_between(
            range(len(factors)), factors, color=ACCENT, alpha=0.08, linewidth=0, step="post" if jumps else None
        )
        axes.set_title(pick(title, language), pad=6)
        axes.yaxis.grid(True, color=LINE)
        axes.set_ylim(0, 1.1)
        axes.set_xlim(0, found["steps"])
        if name == "plateau":
            top = max(found["plateau_loss"])
            axes.plot([loss / top for loss in found["plateau_loss"]], color=WARM, linewidth=1, linestyle="--")
            axes.text(62, 0.62, pick(LOSS, language), color=WARM, fontsize=8)
    for axes in grid[1]:
        axes.set_xlabel(pick(STEP, language))
    for axes in grid[:, 0]:
        axes.set_ylabel(pick(FACTOR, language), color=SOFT)
    return figure


PICTURE = Picture(
    "schedules",
    Text("StepLR, Noam, cosine, linear, plateau, WSD", "StepLR、Noam、余弦、线性、plateau、WSD"),
    data,
    draw,
)
