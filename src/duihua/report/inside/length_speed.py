"""Training speed against sequence length: recurrent networks step by step, the Transformer all at once.

The numbers are of the machine that measured them (evaluation/length_speed.py), so they come from a file: a JSON object, or a
line of JSON lines, with "times", a list of {model, length, steps_per_second, tokens_per_second, parameters}.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from duihua.report.components import compact
from duihua.report.inside.picture import Picture
from duihua.report.inside.style import LINE, SERIES, Language, canvas, pick, plain
from duihua.report.inside.subject import Subject
from duihua.report.texts import Text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = Text("Sequential against parallel: speed and sequence length", "顺序与并行：速度与序列长度")
STEPS, TOKENS = Text("training steps a second", "每秒训练步数"), Text("tokens a second", "每秒词元数")
LENGTH = Text("tokens in a sequence", "序列中的词元数")
NAMES = {
    "rnn": Text("RNN", "RNN"),
    "lstm": Text("LSTM", "LSTM"),
    "transformer": Text("Transformer", "Transformer"),
    "rnn, written out": Text("RNN, step by step", "RNN，逐步计算"),
    "lstm, written out": Text("LSTM, step by step", "LSTM，逐步计算"),
}
NOTE = Text(
    "Measured{where}, both axes logarithmic. A recurrent network takes as many steps one after the other as there "
    "are tokens; a Transformer "
    "computes all places at once, with work that grows with the square of the length in its attention.",
    "实测结果{where}，两轴均为对数。循环网络必须一个词元接一个词元地计算；Transformer 同时计算所有位置，其注意力部分"
    "的计算量随长度的平方增长。",
)


def data(subject: Subject) -> dict[str, Any]:
    """times as the file has them, and the machine where it names one."""
    found = next(iter(subject.measured(["times"], "steps per second against length").values()))
    keys = ("model", "length", "parameters", "steps_per_second", "tokens_per_second")
    return {
        "machine": str(found.get("machine") or ""),
        "times": [{key: row.get(key) for key in keys} for row in found["times"]],
    }


def draw(found: dict[str, Any], language: Language) -> Figure:
    """Steps and tokens a second, a line for each network."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    where = f" ({found['machine']})" if found["machine"] else ""
    figure = canvas(9.6, 3.6, pick(TITLE, language), plain(pick(NOTE, language, where=where)))
    models = list(dict.fromkeys(row["model"] for row in found["times"]))
    for axes, key, title in zip(
        figure.subplots(1, 2), ("steps_per_second", "tokens_per_second"), (STEPS, TOKENS), strict=True
    ):
        for model, colour in zip(models, SERIES * 2, strict=False):
            rows = sorted((row["length"], row[key]) for row in found["times"] if row["model"] == model)
            name = pick(NAMES[model], language) if model in NAMES else plain(str(model))
            axes.plot(*zip(*rows, strict=True), color=colour, marker="o", markersize=3.5, label=name,
                      linestyle="--" if "written" in model else "-")  # fmt: skip
        lengths = sorted({row["length"] for row in found["times"]})
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(lengths, [str(length) for length in lengths])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.grid(True, color=LINE)
        axes.set_title(pick(title, language), pad=8)
        axes.set_xlabel(pick(LENGTH, language))
    figure.axes[0].legend()
    return figure


PICTURE = Picture(
    "length-speed",
    Text("steps a second against length: RNN, LSTM, Transformer", "每秒步数随长度的变化：RNN、LSTM、Transformer"),
    data,
    draw,
    needs="measurements",
)
