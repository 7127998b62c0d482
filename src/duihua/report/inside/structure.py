"""What GPT drops: the Transformer's encoder, and with it the cross-attention of every decoder block.

The decoder of Vaswani et al. 2017 (figure 1) looks at its own text and across at the source. A language model has no
source, so Liu et al. 2018 (section 4.2.3) and GPT-1 keep the decoder alone: a block of two sub-layers in place of three.
The list of sub-layers is read off the networks of this project themselves, so that the picture cannot drift from them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from duihua.report.inside.picture import Picture
from duihua.report.inside.style import ACCENT, COOL, INK, LINE, PAPER, SOFT, WARM, Language, canvas, pick
from duihua.report.inside.subject import Subject
from duihua.report.texts import Text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import nn

TITLE = Text("GPT is the Transformer's decoder without cross-attention", "GPT 就是去掉交叉注意力的 Transformer 解码器")
STACKS = {
    "encoder": Text("Transformer: encoder", "Transformer：编码器"),
    "decoder": Text("Transformer: decoder", "Transformer：解码器"),
    "gpt": Text("GPT: decoder only", "GPT：仅解码器"),
}
PARTS = {
    "attention": Text("self-attention", "自注意力"),
    "masked_attention": Text("masked self-attention", "带掩码的自注意力"),
    "cross_attention": Text("cross-attention", "交叉注意力"),
    "feed_forward": Text("feed-forward", "前馈网络"),
}
EMBEDDING = {"encoder": Text("source + positions", "源语言 + 位置"), "decoder": Text("target + positions", "目标语言 + 位置"),
             "gpt": Text("text + positions", "文本 + 位置")}  # fmt: skip
TOP = {"decoder": Text("next target token", "下一个目标词元"), "gpt": Text("next token", "下一个词元")}
DROPPED = Text("dropped", "去掉")
REPEATED = Text("× {count}", "× {count}")
NOTE = Text(
    "Each box is followed by a residual connection and a norm. N = 6 + 6 blocks in the paper's base model, 12 in "
    "GPT-1. Without a "
    "source sentence there is nothing to look across at, so the middle sub-layer goes.",
    "每个方框后面都有残差连接和归一化。论文的基础模型为 6 + 6 个块，GPT-1 为 12 个块。没有源语言句子可看，中间的子层"
    "也就去掉了。",
)
COLOURS = {"attention": ACCENT, "masked_attention": ACCENT, "cross_attention": WARM, "feed_forward": COOL}


def data(_subject: Subject) -> dict[str, Any]:
    """The sub-layers of one block of each stack, bottom up, and how many blocks there are."""
    import torch

    from duihua.models.decoder import Decoder
    from duihua.models.presets import preset
    from duihua.models.transformer import Transformer
    from duihua.models.transformer_config import TransformerConfig

    with torch.device("meta"):  # shapes only
        transformer = Transformer(TransformerConfig(vocabulary_size=8))
        gpt = Decoder(preset("gpt1", vocabulary_size=8))
    return {
        "encoder": _sub_layers(transformer.encoder, masked=False),
        "decoder": _sub_layers(transformer.decoder, masked=True),
        "gpt": _sub_layers(gpt.blocks, masked=True),
    }


def _sub_layers(blocks: nn.ModuleList, masked: bool) -> dict[str, Any]:
    block = blocks[0]
    names = [name for name, _ in block.named_children() if name in PARTS]
    return {"blocks": len(blocks), "parts": ["masked_attention" if masked and n == "attention" else n for n in names]}


def draw(found: dict[str, Any], language: Language) -> Figure:
    """Three stacks side by side, the arrow from encoder to decoder, and the hole in GPT's."""
    figure = canvas(10.0, 4.6, pick(TITLE, language), pick(NOTE, language))
    axes = figure.add_subplot()
    axes.set_xlim(0, 10)
    axes.set_ylim(0, 4.6)
    axes.set_axis_off()
    lefts = {"encoder": 0.3, "decoder": 3.75, "gpt": 7.2}
    for stack, left in lefts.items():
        _stack(axes, stack, found[stack], left, language)
    style = {"arrowstyle": "-|>", "color": WARM, "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (4.0, 2.35), (2.85, 2.35), arrowprops=style)
    return figure


def _stack(axes: Axes, stack: str, what: dict[str, Any], left: float, language: Language) -> None:
    from matplotlib.patches import FancyBboxPatch

    width = 2.5
    frame = FancyBboxPatch(
        (left, 0.95), width, 2.75, boxstyle="round,pad=0,rounding_size=0.1", facecolor="#f6f8f6", edgecolor=LINE
    )
    axes.add_patch(frame)
    axes.text(left, 4.4, pick(STACKS[stack], language), fontsize=10.5, weight="bold", color=INK, va="center")
    places = {"attention": 1.4, "masked_attention": 1.4, "cross_attention": 2.35, "feed_forward": 3.3}
    for part in what["parts"]:
        _box(axes, left, places[part], pick(PARTS[part], language), COLOURS[part])
    if stack == "gpt" and "cross_attention" not in what["parts"]:
        _box(axes, left, places["cross_attention"], pick(PARTS["cross_attention"], language), None)
        axes.plot([left + 0.42, left + 2.08], [2.16, 2.54], color=WARM, linewidth=1.4, alpha=0.4)
        axes.plot([left + 0.42, left + 2.08], [2.54, 2.16], color=WARM, linewidth=1.4, alpha=0.4)
        axes.text(left + width + 0.08, 2.35, pick(DROPPED, language), fontsize=9, color=WARM, va="center")
    arrow = {"arrowstyle": "-|>", "color": SOFT, "linewidth": 1.0, "shrinkA": 0, "shrinkB": 0}
    middle = left + width / 2
    axes.annotate("", (middle, 0.95), (middle, 0.62), arrowprops=arrow)
    axes.text(middle, 0.45, pick(EMBEDDING[stack], language), fontsize=9, ha="center", va="center", color=SOFT)
    if stack in TOP:
        axes.annotate("", (middle, 4.0), (middle, 3.7), arrowprops=arrow)
        axes.text(middle, 4.1, pick(TOP[stack], language), fontsize=9, ha="center", va="center", color=SOFT)
    else:
        axes.plot([middle, middle, 2.85, 2.85], [3.7, 3.9, 3.9, 2.35], color=WARM, linewidth=1.6)
    axes.text(
        left + width - 0.1,
        1.02,
        pick(REPEATED, language, count=what["blocks"]),
        fontsize=9,
        ha="right",
        va="bottom",
        color=SOFT,
    )


def _box(axes: Axes, left: float, y: float, text: str, colour: str | None) -> None:
    from matplotlib.patches import FancyBboxPatch

    box = FancyBboxPatch(
        (left + 0.25, y - 0.25), 2.0, 0.5, boxstyle="round,pad=0,rounding_size=0.07",
        facecolor=colour or PAPER, edgecolor=colour or SOFT, linestyle="-" if colour else "--",
    )  # fmt: skip
    axes.add_patch(box)
    axes.text(left + 1.25, y, text, fontsize=9.3, ha="center", va="center", color=PAPER if colour else SOFT)


PICTURE = Picture(
    "structure",
    Text("GPT drops the encoder and the cross-attention", "GPT 去掉了编码器和交叉注意力"),
    data,
    draw,
)
