"""How large language models became: a timeline of published parameter counts, each with the paper that states it.

Why a table with sources: numbers of models travel without them. GPT-4's size was never disclosed (its report says so in
section 2); a figure of 170 trillion parameters that is often repeated has no source, and so GPT-4 has a date here and no
number. For sparse models (mixtures of experts) the total is drawn full and what one token uses, where published, hollow.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import TYPE_CHECKING, Any

from duihua.report.inside.picture import Picture
from duihua.report.inside.style import ACCENT, COOL, INK, LINE, SOFT, WARM, Language, canvas, pick
from duihua.report.inside.subject import Subject
from duihua.report.texts import Text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = Text("Published sizes of language models", "已公布的语言模型规模")
AXIS = Text("parameters", "参数量")
DENSE, SPARSE = Text("dense", "稠密模型"), Text("sparse: all experts", "稀疏模型：全部专家")
ACTIVE = Text("sparse: used for one token", "稀疏模型：每个词元实际使用")
UNDISCLOSED = Text("GPT-4: not disclosed", "GPT-4：未公布")
NOTE = Text(
    "Logarithmic. Only numbers that the makers published; the paper for each stands in the data beside this picture. "
    "GPT-4's size was never disclosed: the 170 trillion that is often quoted has no source.",
    "纵轴为对数。只收录开发者公布的数字，每个数字的论文出处见随图数据。GPT-4 的规模从未公布：常被引用的“170 万亿”没有来源。",
)
# Points to the label's right unless a neighbour stands there: dx, dy in points, and the alignment.
SHIFTS: dict[str, tuple[float, float, str]] = {
    "Transformer (big)": (6, 4, "left"),
    "GPT-1": (6, -9, "left"),
    "BERT-large": (6, 3, "left"),
    "Megatron-LM": (6, -10, "left"),
    "GPT-3": (-5, 5, "right"),
    "Switch-C": (6, 3, "left"),
    "Jurassic-1 Jumbo": (-5, -10, "right"),
    "Gopher": (-6, 3, "right"),
    "MT-NLG": (-6, 4, "right"),
    "LaMDA": (-5, -11, "right"),
    "Chinchilla": (-6, -7, "right"),
    "PaLM": (6, 4, "left"),
    "OPT-175B": (0, 7, "center"),
    "GLM-130B": (-3, -12, "right"),
    "BLOOM": (0, 7, "center"),
    "LLaMA-65B": (-2, -12, "right"),
    "Llama 2 70B": (2, -13, "center"),
    "Qwen-14B": (0, -13, "center"),
    "Mixtral 8x7B": (6, -11, "left"),
    "Llama 3 70B": (-2, 6, "right"),
    "DeepSeek-V2": (-5, 5, "right"),
    "Llama 3.1 405B": (-6, 4, "right"),
    "Qwen2.5-72B": (7, -2, "left"),
    "DeepSeek-V3": (6, 5, "left"),
    "Qwen3-235B-A22B": (7, -3, "left"),
}


def data(_subject: Subject) -> dict[str, Any]:
    """models: name, date (year-month), parameters (None: not disclosed), active, sparse, source; checked (of some): the
    count that follows from the published shape, to the parameter."""
    text = resources.files("duihua.report.inside").joinpath("model_sizes.json").read_text(encoding="utf-8")
    return {"models": json.loads(text)}


def year(date: str) -> float:
    """2020-05 as 2020.375: the middle of the month."""
    whole, month = date.split("-")
    return int(whole) + (int(month) - 0.5) / 12


def draw(found: dict[str, Any], language: Language) -> Figure:
    """Points over time on a logarithmic scale, names beside them."""
    figure = canvas(10.5, 5.4, pick(TITLE, language), pick(NOTE, language))
    axes = figure.add_subplot()
    axes.set_yscale("log")
    known = [model for model in found["models"] if model["parameters"]]
    for sparse, colour, label in ((False, ACCENT, DENSE), (True, COOL, SPARSE)):
        group = [model for model in known if bool(model.get("sparse")) == sparse]
        axes.scatter(
            [year(model["date"]) for model in group], [model["parameters"] for model in group], 34,
            color=colour, zorder=3, label=pick(label, language), linewidths=0,
        )  # fmt: skip
    active = [model for model in known if model.get("active")]
    for model in active:
        axes.plot(
            [year(model["date"])] * 2, [model["active"], model["parameters"]], color=COOL, linewidth=0.8, alpha=0.5
        )
    axes.scatter(
        [year(model["date"]) for model in active], [model["active"] for model in active], 30,
        facecolors="white", edgecolors=COOL, zorder=3, linewidths=1.2, label=pick(ACTIVE, language),
    )  # fmt: skip
    for model in known:
        dx, dy, side = SHIFTS.get(model["name"], (6, 3, "left"))
        axes.annotate(
            model["name"], (year(model["date"]), model["parameters"]), (dx, dy),
            textcoords="offset points", fontsize=8.3, ha=side, color=INK,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4, "alpha": 0.85}, zorder=2,
        )  # fmt: skip
    for model in found["models"]:
        if not model["parameters"]:
            axes.axvline(year(model["date"]), color=WARM, linewidth=1, linestyle="--", zorder=0)
            axes.text(
                year(model["date"]) + 0.06, 3.2e12, pick(UNDISCLOSED, language), color=WARM, fontsize=9, va="center"
            )
    axes.set_ylim(6e7, 6e12)
    axes.set_xlim(2017.2, 2026.6)
    axes.set_xticks(range(2018, 2027))
    axes.set_yticks([1e8, 1e9, 1e10, 1e11, 1e12], ["100 M", "1 B", "10 B", "100 B", "1 T"])
    if language == "zh":
        axes.set_yticks([1e8, 1e9, 1e10, 1e11, 1e12], ["1 亿", "10 亿", "100 亿", "1000 亿", "1 万亿"])
    axes.minorticks_off()
    axes.yaxis.grid(True, color=LINE)
    axes.set_axisbelow(True)
    axes.set_ylabel(pick(AXIS, language), color=SOFT)
    axes.legend(loc="lower right")
    return figure


PICTURE = Picture(
    "model-sizes",
    Text("published parameter counts over time, each with its source", "历年公布的参数量，均注明出处"),
    data,
    draw,
)
