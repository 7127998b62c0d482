"""The causal mask: scores, the mask, masked_fill with minus infinity, and the weights that the softmax makes of it.

Why minus infinity and not zero: the softmax turns a score into exp(score), and exp(0) = 1 still gets a share, while
exp(-inf) is exactly 0. The mask need not have the scores' shape, it only has to broadcast to it: here (1, 1, t, s) to
(b, h, t, s). With a model the numbers are those of its first layer and head, without one a fixed example (Vaswani et al.
2017, section 3.2.3).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from duihua.report.inside.picture import Picture
from duihua.report.inside.style import Language, canvas, heat, pick
from duihua.report.inside.subject import LOVE, Subject, rounded
from duihua.report.texts import Text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_CHARACTERS = 12
TITLE = Text("The causal mask: no token looks at what follows it", "因果掩码：任何词元都看不到它后面的内容")
PANELS = (
    ("scores", Text("1  scores  Q Kᵀ / √d", "1  得分  Q Kᵀ / √d")),
    ("mask", Text("2  mask: 1 may look, 0 may not", "2  掩码：1 可以看，0 不可以看")),
    ("masked", Text("3  masked_fill(mask == 0, −∞)", "3  masked_fill(mask == 0, −∞)")),
    ("weights", Text("4  softmax of each row", "4  每一行做 softmax")),
)
NOTES = {
    "model": Text(
        "Real scores of layer 1, head 1. Rows look, columns are looked at. Every row of 4 adds up to 1; above the "
        "diagonal it is "
        "exactly 0, because exp(−∞) = 0.",
        "第 1 层第 1 个头的真实得分。行是“看”的词元，列是“被看”的词元。图 4 每一行之和为 1；对角线以上严格为 0，因为 "
        "exp(−∞) = 0。",
    ),
    "example": Text(
        "Scores made up for the example. Rows look, columns are looked at. Every row of 4 adds up to 1; above the "
        "diagonal it is "
        "exactly 0, because exp(−∞) = 0.",
        "得分为示例数值。行是“看”的词元，列是“被看”的词元。图 4 每一行之和为 1；对角线以上严格为 0，因为 exp(−∞) = 0。",
    ),
}


def data(subject: Subject) -> dict[str, Any]:
    """tokens, and four matrices: scores, mask (0 or 1), masked (None for minus infinity), weights."""
    if subject.model is None:
        tokens = list((LOVE if subject.text is None else subject.text).replace(" ", "␣"))[:MOST_CHARACTERS]
        scores = [
            [round(2 * math.sin(1.7 * i + 0.9 * j * j + 0.4), 2) for j in range(len(tokens))]
            for i in range(len(tokens))
        ]
        source = "example"
    else:
        look = subject.love
        tokens, source = look.tokens, "model"
        scores = rounded(look.inside.attention[0].scores()[0, 0])
    count = range(len(tokens))
    masked = [[scores[i][j] if j <= i else None for j in count] for i in count]
    return {
        "source": source,
        "tokens": tokens,
        "scores": scores,
        "mask": [[int(j <= i) for j in count] for i in count],
        "masked": masked,
        "weights": [[round(weight, 4) for weight in softmax(row)] for row in masked],
    }


def softmax(row: list[float | None]) -> list[float]:
    """Shares that add up to 1; exactly 0 for None (minus infinity); a row of None alone is 0 throughout."""
    shown = [score for score in row if score is not None]
    if not shown:
        return [0.0] * len(row)
    top = max(shown)
    parts = [0.0 if score is None else math.exp(score - top) for score in row]
    return [part / sum(parts) for part in parts]


def draw(found: dict[str, Any], language: Language) -> Figure:
    """Four matrices, two by two."""
    tokens = found["tokens"]
    side = min(4.4, max(2.7, 0.55 + 0.42 * len(tokens)))
    figure = canvas(2 * side, 2 * side, pick(TITLE, language), pick(NOTES[found["source"]], language))
    small = len(tokens) <= 10
    for number, (key, title) in enumerate(PANELS):
        axes = figure.add_subplot(2, 2, number + 1)
        kind = "diverging" if key in ("scores", "masked") else "sequential"
        reach = max(abs(score) for row in found["scores"] for score in row)
        low, high = (-reach, reach) if kind == "diverging" else (0.0, 1.0)
        form = ("d" if key == "mask" else ".2f") if small else ""
        hidden = "−∞" if key == "masked" else ""
        heat(axes, found[key], tokens, tokens, kind=kind, low=low, high=high, numbers=form, hidden=hidden)  # type: ignore[arg-type]
        axes.set_title(pick(title, language), pad=8)
    return figure


PICTURE = Picture(
    "causal-mask",
    Text("scores, mask, masked_fill(−∞) and softmax", "得分、掩码、masked_fill(−∞) 与 softmax"),
    data,
    draw,
)
