"""How much each layer changes the vectors: cosine from layer to layer, to the embedding and to the end.

Every layer transforms the vectors, but it adds to what is there (the residual connection), so that the direction turns by
degrees. A cosine near 1 means that a layer left the direction alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from duihua.report.inside.logit_lens import layer_names
from duihua.report.inside.picture import Picture
from duihua.report.inside.style import ACCENT, COOL, LINE, WARM, Language, canvas, heat, pick
from duihua.report.inside.subject import Look, Subject, rounded
from duihua.report.texts import Text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = Text("Every layer turns the vectors", "每一层都在改变向量的方向")
PER_TOKEN = Text("cosine with the layer before, by token", "各词元与上一层的余弦")
MEAN = Text("mean over the tokens", "各词元的平均")
PREVIOUS, FIRST, LAST = (
    Text("with the layer before", "与上一层"),
    Text("with the embedding", "与词嵌入"),
    Text("with the last layer", "与最后一层"),
)
NOTE = Text(
    "1: the direction stayed; 0: turned at right angles. In a GPT each vector gathers its left context only. '{text}'",
    "1 表示方向不变，0 表示转到垂直方向。在 GPT 中，每个向量只汇集它左边的上下文。“{text}”",
)


def data(subject: Subject) -> dict[str, Any]:
    """tokens; previous[layer][token]: cosine with the layer before; mean_previous, mean_first, mean_last: a number for each
    state; norms: mean length of the vectors."""
    return change_data(subject.look)


def change_data(look: Look) -> dict[str, Any]:
    """The same for a text that was already looked at. State 0 is the embedding, state n what block n gave."""
    import torch
    from torch.nn.functional import cosine_similarity

    states = torch.stack([state[0].float() for state in look.inside.states["blocks"]])  # (layers + 1, t, d)
    previous = cosine_similarity(states[1:], states[:-1], dim=-1)
    return {
        "text": look.text,
        "tokens": look.tokens,
        "previous": rounded(previous),
        "mean_previous": [None, *rounded(previous.mean(dim=1))],
        "mean_first": rounded(cosine_similarity(states, states[:1], dim=-1).mean(dim=1)),
        "mean_last": rounded(cosine_similarity(states, states[-1:], dim=-1).mean(dim=1)),
        "norms": rounded(states.norm(dim=-1).mean(dim=1)),
    }


def draw(found: dict[str, Any], language: Language) -> Figure:
    """A heat map by token and layer, and the means as curves."""
    layers, tokens = found["previous"][::-1], found["tokens"]
    names = layer_names(len(layers) + 1, language)
    figure = canvas(
        10.4, max(2.7, 1.1 + 0.28 * len(layers)), pick(TITLE, language), pick(NOTE, language, text=found["text"])
    )
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    few = len(layers) * len(tokens) <= 120
    low = min(0.0, *(cosine for layer in layers for cosine in layer))
    picture = heat(
        left,
        layers,
        names[:0:-1],
        tokens,
        low=low,
        high=1.0,
        square=False,
        numbers=".2f" if few else "",
        size=7.5,
        room=60 // len(tokens),
    )
    left.set_title(pick(PER_TOKEN, language), pad=8)
    figure.colorbar(picture, ax=left, aspect=16, pad=0.01).outline.set_visible(False)
    places = range(len(names))
    for key, colour, label in (
        ("mean_previous", ACCENT, PREVIOUS),
        ("mean_first", COOL, FIRST),
        ("mean_last", WARM, LAST),
    ):
        curve = [float("nan") if value is None else value for value in found[key]]
        right.plot(places, curve, color=colour, marker="o", markersize=3.5, label=pick(label, language))
    right.set_xticks(
        places, names if len(names) <= 7 else [str(place) for place in places], rotation=25 if len(names) <= 7 else 0
    )
    right.set_ylim(min(-0.05, *found["mean_first"], *found["mean_last"]), 1.06)
    right.yaxis.grid(True, color=LINE)
    right.set_title(pick(MEAN, language), pad=8)
    right.legend()
    return figure


PICTURE = Picture(
    "layer-change",
    Text("cosine of the vectors from layer to layer", "向量逐层变化的余弦"),
    data,
    draw,
    needs="model",
)
