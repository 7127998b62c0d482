"""Products of positions: PE(p) . PE(q) depends on the distance p - q alone, and falls with it.

PE(p + k) is a rotation of PE(p), the same for every p (Vaswani et al. 2017, section 3.5), so that the product of two places
is the sum of cos(w_i (p - q)) over the frequencies w_i: a matrix with equal diagonals. The product of a query and a key of ones
under rotary positions is the same sum, which is why their scores too know distances only (Su et al. 2021, section 3.4.3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from duihua.report.inside.picture import Picture
from duihua.report.inside.style import ACCENT, COOL, LINE, WARM, Language, canvas, heat, number_ticks, pick
from duihua.report.inside.subject import Subject, rounded
from duihua.report.texts import Text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLACES, WIDTH = 64, 64
STARTS = (0, 20, 40)
TITLE = Text("Positions multiplied: only the distance counts", "位置向量的点积：只与距离有关")
MATRIX = Text("PE(p) ⋅ PE(q), sinusoids of width {width}", "PE(p) ⋅ PE(q)，宽度 {width} 的正弦编码")
CURVES = Text("by distance", "随距离的变化")
FROM = Text("PE({start}) ⋅ PE({start} + k)", "PE({start}) ⋅ PE({start} + k)")
ROTARY = Text("rotary: turned ones ⋅ ones", "旋转编码：转过的全 1 向量 ⋅ 全 1 向量")
DISTANCE, PLACE = Text("distance k", "距离 k"), Text("place", "位置")
NOTE = Text(
    "All diagonals of the matrix hold one value each: curves from different places lie on each other. Both encodings "
    "give the sum "
    "of cos(ω k) over the frequencies ω, for rotary counted twice.",
    "矩阵的每条对角线上数值相同，因此从不同位置出发的曲线完全重合。两种编码都等于各频率 ω 的 cos(ω k) 之和，旋转编码计两次。",
)


def data(_subject: Subject) -> dict[str, Any]:
    """matrix (place, place); by_distance: a curve for each start; rotary: a curve."""
    import torch

    from duihua.nn.positions import angle_tables, rotary_frequencies, rotate, sinusoidal_table

    device = torch.device("cpu")
    table = sinusoidal_table(PLACES, WIDTH, device).double()
    products = table @ table.T
    cosine, sine = angle_tables(torch.arange(PLACES), rotary_frequencies(WIDTH, 10_000.0, device))
    turned = rotate(torch.ones(1, 1, PLACES, WIDTH), cosine, sine)[0, 0]
    return {
        "matrix": rounded(products, 3),
        "by_distance": {str(start): rounded(products[start, start:], 3) for start in STARTS},
        "rotary": rounded(turned @ turned[0], 3),
    }


def draw(found: dict[str, Any], language: Language) -> Figure:
    """The matrix, and its diagonals as curves."""
    figure = canvas(9.4, 3.9, pick(TITLE, language), pick(NOTE, language))
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    picture = heat(left, found["matrix"], kind="diverging")
    left.set_title(pick(MATRIX, language, width=WIDTH), pad=8)
    left.set_xlabel(pick(PLACE, language))
    left.set_ylabel(pick(PLACE, language))
    number_ticks(left, PLACES, PLACES, 16)
    figure.colorbar(picture, ax=left, shrink=0.8, aspect=24).outline.set_visible(False)
    for (start, curve), colour, width in zip(
        found["by_distance"].items(), (ACCENT, COOL, WARM), (5.0, 2.6, 1.0), strict=True
    ):
        right.plot(curve, color=colour, linewidth=width, label=pick(FROM, language, start=start))
    right.plot(found["rotary"], color="black", linewidth=1.2, linestyle=":", label=pick(ROTARY, language))
    right.set_xlabel(pick(DISTANCE, language))
    right.set_title(pick(CURVES, language), pad=8)
    right.yaxis.grid(True, color=LINE)
    right.set_xlim(0, PLACES - 1)
    right.legend()
    return figure


PICTURE = Picture(
    "position-products",
    Text("products of position vectors depend on the distance alone", "位置向量的点积只取决于距离"),
    data,
    draw,
)
