"""How far back a gradient reaches: RNN, GRU and LSTM, norm against lag, measured when the picture is made.

Over k steps the tanh RNN multiplies by k matrices whose largest factor is below one, and the gradient vanishes (Hochreiter
1991; Bengio et al. 1994). The LSTM's cell is multiplied by its forget gates alone, and with a forget bias of 1 these
start open. What is measured, and how, says evaluation/gradient_reach.py; it takes a few seconds, and the seeds are fixed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from duihua.report.inside.picture import Picture
from duihua.report.inside.style import ACCENT, COOL, GOLD, LINE, WARM, Language, canvas, pick
from duihua.report.inside.subject import Subject
from duihua.report.texts import Text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVES = (
    ("rnn", None, 1.0, WARM, Text("tanh RNN", "tanh RNN")),
    ("rnn", None, 2.0, GOLD, Text("tanh RNN, recurrent matrix doubled", "tanh RNN，循环矩阵加倍")),
    ("gru", None, 1.0, COOL, Text("GRU", "GRU")),
    ("lstm", None, 1.0, "#5b8d8a", Text("LSTM, random forget bias", "LSTM，遗忘门偏置随机")),
    ("lstm", 1.0, 1.0, ACCENT, Text("LSTM, forget bias 1", "LSTM，遗忘门偏置为 1")),
)
SHOWN_LAGS = (10, 50, 100)
LOWEST = 1e-20
TITLE = Text("How far back the gradient reaches", "梯度能传多远")
LAG, NORM = Text("steps back (lag)", "往回的步数（滞后）"), Text("norm of the gradient", "梯度的范数")
NOTE = Text(
    "Random weights, sequences of {steps} steps, geometric mean over {seeds} seeds; 1 at lag 0. At lag 50: RNN "
    "{rnn}, LSTM with "
    "forget bias 1 {lstm}. Curves are cut at {lowest}.",
    "随机权重，序列长 {steps} 步，{seeds} 个随机种子的几何平均；滞后 0 处为 1。滞后 50 处：RNN {rnn}，遗忘门偏置为 1 "
    "的 LSTM {lstm}。"
    "低于 {lowest} 的部分不画。",
)


def data(_subject: Subject) -> dict[str, Any]:
    """curves: cell, forget_bias, recurrent_scale and norms by lag; steps, seeds."""
    from duihua.evaluation.gradient_reach import SEEDS, STEPS, gradient_reach

    curves = []
    for cell, bias, scale, _, _ in CURVES:
        found = gradient_reach(cell, forget_bias=bias, recurrent_scale=scale)  # type: ignore[arg-type]
        curves.append({**found.to_mapping(), "recurrent_scale": scale})
    return {"steps": STEPS, "seeds": len(SEEDS), "curves": curves}


def draw(found: dict[str, Any], language: Language) -> Figure:
    """Norms on a logarithmic scale against the lag."""
    at_50 = {
        (curve["cell"], curve["forget_bias"], curve["recurrent_scale"]): curve["norms"][50] for curve in found["curves"]
    }
    note = pick(
        NOTE, language, steps=found["steps"], seeds=found["seeds"], lowest=_power(LOWEST),
        rnn=_power(at_50["rnn", None, 1.0]), lstm=_power(at_50["lstm", 1.0, 1.0]),
    )  # fmt: skip
    figure = canvas(8.6, 4.3, pick(TITLE, language), note)
    axes = figure.add_subplot()
    axes.set_yscale("log")
    for curve, (_, _, _, colour, label) in zip(found["curves"], CURVES, strict=True):
        norms = [norm if norm >= LOWEST else float("nan") for norm in curve["norms"]]
        axes.plot(norms, color=colour, label=pick(label, language))
    for lag in SHOWN_LAGS:
        axes.axvline(lag, color=LINE, linewidth=0.8, linestyle=":", zorder=0)
    axes.set_xlim(0, found["steps"] - 1)
    axes.set_ylim(LOWEST, 30)
    powers = range(-20, 2, 4)
    axes.set_yticks([10.0**power for power in powers], [_power(10.0**power) for power in powers])
    axes.minorticks_off()
    axes.yaxis.grid(True, color=LINE)
    axes.set_xlabel(pick(LAG, language))
    axes.set_ylabel(pick(NORM, language))
    axes.legend(loc="upper right")
    return figure


def _power(value: float) -> str:
    """A small number with its power of ten written out: 2×10⁻⁵."""
    digits, power = f"{value:.0e}".split("e")
    raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    if int(power) == 0:
        return digits
    return f"10{raised}" if digits == "1" else f"{digits}×10{raised}"


PICTURE = Picture(
    "gradient-reach",
    Text("gradient norm against lag: RNN, GRU, LSTM", "梯度范数随滞后的变化：RNN、GRU、LSTM"),
    data,
    draw,
)
