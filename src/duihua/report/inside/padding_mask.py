"""The padding mask: sentences of different lengths in one batch, and what happens when the pads are not hidden.

A batch is a rectangle, so shorter sentences are filled up with pads. Why a mask is needed even though a pad's vector may be
all zeros: its score is then 0, exp(0) = 1, and the softmax gives it a share as if it were a word. With the mask (minus
infinity on the columns of pads) the result is that of the sentence alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from duihua.report.inside.causal_mask import softmax
from duihua.report.inside.picture import Picture
from duihua.report.inside.style import (
    ACCENT,
    HIDDEN,
    INK,
    LINE,
    PAPER,
    SOFT,
    WARM,
    Language,
    canvas,
    heat,
    label_ticks,
    pick,
)
from duihua.report.inside.subject import Subject
from duihua.report.texts import Text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SENTENCES = {"en": ("I love you", "Thanks", "How do you do today"), "zh": ("我爱你", "谢谢", "今天天气好")}
PAD = "<pad>"
SCORES = (1.2, 0.3, 1.8, -0.4, 0.9)
"""Of the first sentence's last word with each place, made up; a pad's is 0, because its vector is."""
TITLE = Text("The padding mask: pads get no attention", "填充掩码：填充位得不到任何注意力")
BATCH = Text("the batch: one row a sentence", "一个批次：每行一个句子")
ALLOWED = Text("sentence 1: who may look at whom", "第 1 句：谁可以看谁")
SHARES = Text("attention of its last word", "句中最后一个词的注意力")
WITHOUT, WITH = Text("no mask", "没有掩码"), Text("with mask", "有掩码")
NOTE = Text(
    "A pad's vector is zero, so its score is 0 and exp(0) = 1: without a mask the pads of sentence 1 take {stolen} "
    "of the attention. "
    "With −∞ in their columns they get exactly 0, and the rest is as if the sentence stood alone. Scores made up; "
    "both causal and "
    "padding mask apply in the middle.",
    "填充位的向量为零，得分为 0，而 exp(0) = 1：没有掩码时，第 1 句的填充位会占去 {stolen} 的注意力。把它们所在的列"
    "设为 −∞ 之后，"
    "它们严格为 0，其余部分与句子单独计算时相同。得分为示例数值；中图同时应用了因果掩码和填充掩码。",
)


def data(subject: Subject) -> dict[str, Any]:
    """The batch with its pads, the allowed pairs of the first sentence, and its last word's weights both ways."""
    texts = SENTENCES[subject.language]
    rows = [list(text) if subject.language == "zh" else text.split() for text in texts]
    longest = max(map(len, rows))
    real = [len(row) for row in rows]
    batch = [row + [PAD] * (longest - len(row)) for row in rows]
    scores = [SCORES[place] if place < real[0] else 0.0 for place in range(longest)]
    return {
        "batch": batch,
        "lengths": real,
        "allowed": [[int(j <= i and j < real[0]) for j in range(longest)] for i in range(longest)],
        "scores": scores,
        "without_mask": [round(share, 4) for share in softmax(list(scores))],
        "with_mask": [round(share, 4) for share in softmax([*scores[: real[0]], *[None] * (longest - real[0])])],
    }


def draw(found: dict[str, Any], language: Language) -> Figure:
    """The batch as cells, the matrix of one sentence, and two bars a place."""
    batch, lengths = found["batch"], found["lengths"]
    longest = len(batch[0])
    stolen = f"{100 * sum(found['without_mask'][lengths[0] :]):.0f}%"
    figure = canvas(10.5, 3.3, pick(TITLE, language), pick(NOTE, language, stolen=stolen))
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.25, 1, 1.05))
    heat(left, [[1.0 if word != PAD else None for word in row] for row in batch], low=0.0, high=3.0)
    label_ticks(left, [str(number + 1) for number in range(len(batch))], [])
    for i, row in enumerate(batch):
        for j, word in enumerate(row):
            left.text(j, i, word, ha="center", va="center", fontsize=8.5, color=SOFT if word == PAD else INK)
    left.set_title(pick(BATCH, language), pad=8)
    heat(
        middle,
        [[cell or None for cell in row] for row in found["allowed"]],
        batch[0],
        batch[0],
        low=0.0,
        high=1.4,
        room=5,
    )
    for i in range(longest):
        for j in range(longest):
            seen = found["allowed"][i][j]
            middle.text(
                j, i, "1" if seen else "0", ha="center", va="center", fontsize=8.5, color=PAPER if seen else SOFT
            )
    middle.set_title(pick(ALLOWED, language), pad=8)
    places = range(longest)
    for shift, key, label, colour in ((-0.2, "without_mask", WITHOUT, WARM), (0.2, "with_mask", WITH, ACCENT)):
        right.bar([place + shift for place in places], found[key], 0.36, color=colour, label=pick(label, language))
    right.axvspan(lengths[0] - 0.5, longest - 0.5, color=HIDDEN, zorder=0)
    right.set_xlim(-0.5, longest - 0.5)
    right.set_ylim(0, 1.12 * max(found["with_mask"]))
    label_ticks_x(right, batch[0])
    right.yaxis.grid(True, color=LINE, linewidth=0.6)
    right.set_axisbelow(True)
    right.legend(loc="upper left")
    right.set_title(pick(SHARES, language), pad=8)
    return figure


def label_ticks_x(axes: Any, labels: list[str]) -> None:
    """Words under bars."""
    axes.set_xticks(range(len(labels)), labels, rotation=0 if max(map(len, labels)) <= 5 else 90)


PICTURE = Picture(
    "padding-mask",
    Text("a padded batch, its mask, and attention with and without it", "带填充的批次、掩码，以及有无掩码时的注意力"),
    data,
    draw,
)
