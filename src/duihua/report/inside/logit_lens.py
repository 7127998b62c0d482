"""The logit lens: what the model would say if it stopped after each layer.

Every block adds to the same vector, so the vector in the middle can be given to the last norm and the output layer as if it
were finished (nostalgebraist 2020, "interpreting GPT: the logit lens"). Low layers hold the token itself or noise, high ones
approach the prediction; where it appears tells how deep the model had to think.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from duihua.report.inside.picture import Picture
from duihua.report.inside.style import Language, canvas, heat, pick, plain
from duihua.report.inside.subject import Look, Subject
from duihua.report.texts import Text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TOP = 5
TITLE = Text("Logit lens: what each layer would say next", "Logit lens：每一层会预测什么")
EMBEDDING, LAYER = Text("embedding", "词嵌入"), Text("layer {number}", "第 {number} 层")
READ = Text("token read", "读到的词元")
NOTE = Text(
    "Each cell: the likeliest next token if the model stopped after that layer; colour: its probability. The top row "
    "is what the model "
    "says in fact. '{text}'",
    "每个格子：若模型在该层停下，最可能的下一个词元；颜色深浅为其概率。最上面一行是模型的真实预测。“{text}”",
)


def data(subject: Subject) -> dict[str, Any]:
    """tokens, and layers[layer][position] = the likeliest tokens as [label, probability]."""
    return lens_data(subject.look)


def lens_data(look: Look) -> dict[str, Any]:
    """The same for a text that was already looked at. Layer 0 is the embedding; the last layer is the model's own output."""
    import torch

    layers = []
    for state in look.inside.states["blocks"]:
        with torch.no_grad():
            logits_tv = look.network.logits(look.network.final_norm(state[0])).float()
        best = logits_tv.softmax(dim=-1).topk(min(TOP, logits_tv.shape[-1]), dim=-1)
        layers.append(
            [
                [[look.label(id), round(share, 4)] for id, share in zip(ids, shares, strict=True)]
                for ids, shares in zip(best.indices.tolist(), best.values.tolist(), strict=True)
            ]
        )
    return {"text": look.text, "tokens": look.tokens, "layers": layers}


def layer_names(count: int, language: Language) -> list[str]:
    """Names of the embedding and the layers after it."""
    return [pick(EMBEDDING, language), *(pick(LAYER, language, number=number) for number in range(1, count))]


def draw(found: dict[str, Any], language: Language) -> Figure:
    """Layers from below, tokens across."""
    layers, tokens = found["layers"][::-1], found["tokens"]
    names = layer_names(len(layers), language)[::-1]
    cell = 0.95 if len(tokens) <= 12 else 0.62
    figure = canvas(
        max(6.0, 1.2 + cell * len(tokens)),
        0.9 + 0.4 * len(layers),
        pick(TITLE, language),
        pick(NOTE, language, text=found["text"]),
    )
    axes = figure.add_subplot()
    shares = [[position[0][1] for position in layer] for layer in layers]
    picture = heat(axes, shares, names, tokens, low=0.0, high=1.0, square=False, room=10 if len(tokens) <= 12 else 6)
    for i, layer in enumerate(layers):
        for j, position in enumerate(layer):
            label, share = position[0]
            size = 8.8 if len(label) <= 6 else 6.8
            axes.text(
                j,
                i,
                plain(label[:10]),
                ha="center",
                va="center",
                fontsize=size,
                color="white" if share > 0.6 else "#1c2427",
            )
    axes.set_xlabel(pick(READ, language))
    figure.colorbar(picture, ax=axes, aspect=14, pad=0.01).outline.set_visible(False)
    return figure


PICTURE = Picture(
    "logit-lens",
    Text("each layer's likeliest next token", "每一层最可能的下一个词元"),
    data,
    draw,
    needs="model",
)
