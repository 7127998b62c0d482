"""Positions as heat maps: the fixed sinusoids, a learnt table, and the angles by which rotary positions turn.

PE(p, 2i) = sin(p / 10000^(2i/d)), PE(p, 2i+1) = cos(p / 10000^(2i/d)) (Vaswani et al. 2017, section 3.5). The left columns
tick fast and tell neighbours apart, the right ones slowly and tell regions apart, like the hands of a clock. Rotary
positions (Su et al. 2021, equation 34) use the same frequencies, but turn queries and keys instead of adding to them. A
learnt table is shown where the model has one: before training it would be noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from duihua.report.inside.picture import Picture
from duihua.report.inside.style import Language, canvas, heat, number_ticks, pick
from duihua.report.inside.subject import Subject, rounded
from duihua.report.texts import Text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLACES, WIDTH, HEAD_WIDTH, THETA = 80, 64, 64, 10_000.0
TITLE = Text("How places are told apart", "位置是如何区分的")
TITLES = {
    "sinusoidal": Text("sinusoids, added to the embedding", "正弦位置编码，加到词嵌入上"),
    "rotary": Text("rotary: cosine of the angle (θ = {theta:g})", "旋转位置编码：角度的余弦（θ = {theta:g}）"),
    "learned": Text("learnt table of this model", "本模型学到的位置表"),
}
PLACE, DIMENSION = Text("place", "位置"), Text("dimension", "维度")
NOTE = Text(
    "Each row is one place. Left columns change from place to place, right ones hardly within {places} places. Sinusoids: even "
    "columns hold sines, odd ones cosines. Rotary: the second half of the columns turns like the first.",
    "每一行是一个位置。左侧各列随位置快速变化，右侧各列在 {places} 个位置内几乎不变。正弦编码：偶数列为正弦，奇数列为余弦。"
    "旋转编码：后一半列与前一半转动相同。",
)


def data(subject: Subject) -> dict[str, Any]:
    """Matrices (place, dimension): sinusoidal, rotary, and learned where the model has such a table."""
    import torch

    from duihua.nn.positions import angle_tables, rotary_frequencies, sinusoidal_table

    device = torch.device("cpu")
    head_width, theta, learned = HEAD_WIDTH, THETA, None
    if subject.model is not None:
        network = subject.love.network
        config = network.config
        if config.positions == "rotary":
            head_width, theta = config.head_width, config.rope_theta
        if network.position_embedding is not None:
            learned = rounded(network.position_embedding.weight[:PLACES, :WIDTH], 3)
    cosine, _ = angle_tables(torch.arange(PLACES), rotary_frequencies(head_width, theta, device))
    return {
        "theta": theta,
        "sinusoidal": rounded(sinusoidal_table(PLACES, WIDTH, device), 3),
        "rotary": rounded(cosine, 3),
        **({"learned": learned} if learned else {}),
    }


def draw(found: dict[str, Any], language: Language) -> Figure:
    """One heat map each."""
    panels = [key for key in TITLES if key in found]
    figure = canvas(4.3 * len(panels), 4.2, pick(TITLE, language), pick(NOTE, language, places=PLACES))
    for number, key in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), number + 1)
        picture = heat(axes, found[key], kind="diverging", square=False)
        number_ticks(axes, len(found[key]), len(found[key][0]), 16)
        axes.set_xlabel(pick(DIMENSION, language))
        axes.set_ylabel(pick(PLACE, language))
        axes.set_title(pick(TITLES[key], language, theta=found["theta"]), pad=8)
        figure.colorbar(picture, ax=axes, shrink=0.8, aspect=24).outline.set_visible(False)
    return figure


PICTURE = Picture(
    "positions",
    Text("sinusoidal, rotary and learnt positions as heat maps", "正弦、旋转与可学习位置编码的热图"),
    data,
    draw,
)
