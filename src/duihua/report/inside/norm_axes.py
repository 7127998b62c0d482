"""Over which numbers layer norm and batch norm take their mean and variance, and what follows from it.

Layer norm (Ba et al. 2016) looks along the features of one token: nothing else in the batch matters. Batch norm (Ioffe and
Szegedy 2015) looks along the batch, feature by feature: exchange the other sentences and every result changes, and a batch
of one or a pad spoils the statistics. The numbers beside the grids show it: the same token among two sets of batch mates.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from duihua.report.inside.picture import Picture
from duihua.report.inside.style import ACCENT, INK, PAPER, SOFT, WARM, Language, bare, canvas, pick
from duihua.report.inside.subject import Subject
from duihua.report.texts import Text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TOKEN = (1.0, 3.0, -2.0, 2.0)
MATES = (((0.0, 1.0, 2.0, -1.0), (2.0, 2.0, 0.0, 1.0)), ((8.0, -5.0, 4.0, 9.0), (6.0, 0.0, -7.0, 3.0)))
EPSILON = 1e-5
TITLE = Text("Layer norm and batch norm: which numbers are averaged", "层归一化与批归一化：对哪些数求平均")
LAYER = Text("layer norm: the features of one token", "层归一化：一个词元的各个特征")
BATCH = Text("batch norm: one feature of the whole batch", "批归一化：整个批次的同一个特征")
ROWS, COLUMNS = Text("tokens of the batch", "批次中的词元"), Text("features", "特征")
RESULTS = Text("the first token, normed among two sets of batch mates", "第一个词元在两组不同的同批样本中归一化的结果")
AMONG = (Text("mates A", "同批样本 A"), Text("mates B", "同批样本 B"))
NOTE = Text(
    "One colour, one mean and one variance. Layer norm gives the token the same vector whoever stands beside it; "
    "batch norm does not, "
    "which is why language models, with pads and batches of one, use layer norm.",
    "同一种颜色共用一个均值和一个方差。无论同批的是谁，层归一化给出的向量都不变；批归一化则会改变。因此带有填充、"
    "也常以单条样本运行的语言模型使用层归一化。",
)


def normed(numbers: tuple[float, ...]) -> list[float]:
    """Less their mean, over their standard deviation (of the population, as both norms take it)."""
    mean = sum(numbers) / len(numbers)
    variance = sum((number - mean) ** 2 for number in numbers) / len(numbers)
    return [(number - mean) / math.sqrt(variance + EPSILON) for number in numbers]


def data(_subject: Subject) -> dict[str, Any]:
    """The token, its batch mates, and its vector after both norms, once with each set of mates."""
    batches = [(TOKEN, *mates) for mates in MATES]
    return {
        "token": list(TOKEN),
        "mates": [[list(mate) for mate in mates] for mates in MATES],
        "layer_norm": [[round(number, 4) for number in normed(batch[0])] for batch in batches],
        "batch_norm": [[round(normed(column)[0], 4) for column in zip(*batch, strict=True)] for batch in batches],
    }


def draw(found: dict[str, Any], language: Language) -> Figure:
    """Two coloured grids, each with its results below."""
    figure = canvas(9.6, 4.3, pick(TITLE, language), pick(NOTE, language))
    grids = figure.subplots(2, 2, height_ratios=(1.55, 1))
    for column, (key, title, colour) in enumerate((("layer_norm", LAYER, ACCENT), ("batch_norm", BATCH, WARM))):
        _grid(grids[0][column], by_row=key == "layer_norm", colour=colour, language=language)
        grids[0][column].set_title(pick(title, language), pad=4, loc="center")
        _table(grids[1][column], found, key, colour, language)
    return figure


def _grid(axes: Axes, *, by_row: bool, colour: str, language: Language) -> None:
    from matplotlib.patches import Rectangle

    rows, columns = 5, 8
    for i in range(rows):
        for j in range(columns):
            number = i if by_row else j
            alpha = (0.95, 0.3, 0.6, 0.15, 0.45, 0.22, 0.7, 0.36)[number]
            cell = Rectangle((j, -i), 0.94, 0.94, facecolor=colour, alpha=alpha, edgecolor=PAPER)
            axes.add_patch(cell)
    axes.set_xlim(-1.2, columns + 1.2)
    axes.set_ylim(-rows + 0.1, 1.1)
    bare(axes)
    axes.text(columns / 2, -rows + 0.75, pick(COLUMNS, language), ha="center", va="top", color=SOFT, fontsize=8.5)
    axes.text(
        -0.25, -rows / 2 + 1, pick(ROWS, language), rotation=90, ha="right", va="center", color=SOFT, fontsize=8.5
    )


def _table(axes: Axes, found: dict[str, Any], key: str, colour: str, language: Language) -> None:
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.text(0.5, 0.86, pick(RESULTS, language), fontsize=8.6, color=SOFT, ha="center")
    for line, vector in enumerate(found[key]):
        y = 0.55 - 0.28 * line
        axes.text(0.24, y, pick(AMONG[line], language), fontsize=9, color=INK, ha="right")
        for place, number in enumerate(vector):
            changed = number != found[key][0][place]
            text = f"{number:+.2f}".replace("-", "−")
            axes.text(0.36 + 0.15 * place, y, text, fontsize=9.5, ha="center", color=WARM if changed else colour)


PICTURE = Picture(
    "norm-axes",
    Text("layer norm against batch norm: which numbers share a mean", "层归一化与批归一化：哪些数共用均值"),
    data,
    draw,
)
