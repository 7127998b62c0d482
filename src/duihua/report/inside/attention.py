"""Self-attention of every layer and head on a sentence: who looks at whom.

Each small matrix is one head: rows look, columns are looked at, a row adds up to 1 (Vaswani et al. 2017, equation 1). Above
the diagonal nothing can stand. Common patterns: the diagonal (each token itself), the line below it (the token before), the
first column (a head with nothing to say rests there; Xiao et al. 2023 call it an attention sink).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from duihua.report.inside.picture import Picture
from duihua.report.inside.style import SOFT, Language, canvas, heat, pick
from duihua.report.inside.subject import Look, Subject, rounded
from duihua.report.texts import Text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = Text("Self-attention of every layer and head", "每一层、每个头的自注意力")
HEAD, LAYER = Text("head {number}", "第 {number} 头"), Text("layer {number}", "第 {number} 层")
NOTE = Text(
    "Rows look, columns are looked at; each row adds up to 1, and nothing stands above the diagonal. '{text}'",
    "行是“看”的词元，列是“被看”的词元；每行之和为 1，对角线以上没有数值。“{text}”",
)
MOST_PANELS_ACROSS = 16


def data(subject: Subject) -> dict[str, Any]:
    """tokens, and weights[layer][head][row][column]."""
    return attention_data(subject.look)


def attention_data(look: Look) -> dict[str, Any]:
    """The same for a text that was already looked at."""
    weights = [rounded(attention.weights()[0]) for attention in look.inside.layers("self")]
    return {"text": look.text, "tokens": look.tokens, "weights": weights}


def draw(found: dict[str, Any], language: Language) -> Figure:
    """A grid: layers down, heads across; the tokens are written where there is room."""
    weights, tokens = found["weights"], found["tokens"]
    layers, heads = len(weights), len(weights[0])
    room = heads <= 4 and len(tokens) <= 24
    side = min(3.4, max(2.0, 0.5 + 0.2 * len(tokens))) if room else 12.0 / min(heads, MOST_PANELS_ACROSS)
    label = 0.11 * max(map(len, tokens)) if room else 0.0
    width = max(5.0, heads * (side + 0.1) + label + 0.3)
    figure = canvas(
        width, layers * (side + 0.32) + label, pick(TITLE, language), pick(NOTE, language, text=found["text"])
    )
    grid = figure.subplots(layers, heads, squeeze=False)
    for layer in range(layers):
        for head in range(heads):
            axes = grid[layer][head]
            rows = tokens if room and head == 0 else []
            columns = tokens if room and layer == layers - 1 else []
            heat(axes, _lower(weights[layer][head]), rows, columns, low=0.0, high=1.0, room=3)
            if layer == 0 or room:
                axes.set_title(pick(HEAD, language, number=head + 1), fontsize=9, color=SOFT, pad=4)
            if head == 0:
                axes.set_ylabel(pick(LAYER, language, number=layer + 1), fontsize=9, labelpad=8)
    return figure


def _lower(matrix: list[list[float]]) -> list[list[float | None]]:
    """What a causal mask hides is shown as hidden and not as a small weight."""
    return [
        [weight if column <= row else None for column, weight in enumerate(line)] for row, line in enumerate(matrix)
    ]


PICTURE = Picture(
    "attention",
    Text("self-attention of every layer and head on a sentence", "一个句子在每层、每个头上的自注意力"),
    data,
    draw,
    needs="model",
)
