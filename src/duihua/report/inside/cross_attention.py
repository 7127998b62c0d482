"""Cross-attention of a translator: which words of the source each word of the translation looks at.

The sentence is that of Bahdanau et al. 2015 (figure 3): "The agreement on the European Economic Area was signed in
August 1992." French turns the three words around (la zone économique européenne), and the dark cells run against the
diagonal there. The translation is the model's own unless one is given.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from duihua.errors import ConfigError, DataError
from duihua.report.inside.picture import Picture
from duihua.report.inside.style import Language, canvas, heat, pick
from duihua.report.inside.subject import ECONOMIC_AREA, LOVE, Subject, rounded, token_label
from duihua.report.texts import Text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SENTENCES = {
    "en": ECONOMIC_AREA,
    "fr": "L'accord sur la zone économique européenne a été signé en août 1992.",
    "zh": LOVE,
}
END = "<end>"
MOST = 96
"""Tokens of a sentence; a translator's sentences may be long, and its matrices are drawn large."""
TITLE = Text("Cross-attention: where each word of the translation looks", "交叉注意力：译文的每个词在看原文的哪里")
LAYER = Text("layer {number}, mean of {heads} heads", "第 {number} 层，{heads} 个头的平均")
ONE = Text("layer {number}", "第 {number} 层")
SOURCE, TARGET = Text("source", "原文"), Text("translation (the token written)", "译文（写出的词元）")
NOTE = Text(
    "Each row adds up to 1 over the source. '{text}' → '{target}'",
    "每一行在原文上的总和为 1。“{text}” → “{target}”",
)


def data(subject: Subject) -> dict[str, Any]:
    """source and target tokens, weights[layer][head][target][source]: row i is the attention that wrote target token i."""
    from duihua.engine.translation_model import TranslationModel

    assert subject.translator is not None
    model = TranslationModel.load(subject.translator)
    direction = model.directions[0]
    return cross_data(model, subject.text, direction, subject.target)


def cross_data(model: Any, text: str | None, direction: tuple[str, str], target: str | None = None) -> dict[str, Any]:
    """The same for a TranslationModel that is open; text None: the usual sentence of the language that is read. Raises
    DataError for a translator without attention, ConfigError for a text that is empty or too long."""
    import torch

    if text is None:
        text = SENTENCES.get(direction[0], ECONOMIC_AREA)
    inputs = model.inputs
    source_ids = list(inputs.sources([text], direction[1])[0])
    if not text.strip() or len(source_ids) > MOST:
        raise ConfigError(
            f"a sentence of 1 to {MOST} tokens is needed, this has {len(source_ids)}",
            where="text",
            remedy="Give another",
        )
    if target is None:
        target = model.translate([text], direction)[0][0].text
    target_ids = list(inputs.targets([target])[0])[: min(MOST, model.network.config.most_tokens - 1)]
    before = [inputs.start_id, *target_ids[:-1]]  # what the decoder has read when it writes target_ids
    model.network.eval()
    with torch.no_grad():
        source = torch.tensor([source_ids])
        weights = model.network.attention(source, torch.ones_like(source), torch.tensor([before]))
    if not weights:
        raise DataError(
            "this translator has no attention", where=str(model.directory), remedy="Choose one with attention"
        )

    def label(id: int) -> str:
        if id == inputs.end_id:
            return END
        tags = {tag: f"<{language}>" for language, tag in inputs.tags.items()}
        return tags.get(id) or token_label(inputs.tokenizer.token_bytes(id))

    return {
        "text": text,
        "translation": target,
        "direction": list(direction),
        "source": [label(id) for id in source_ids],
        "target": [label(id) for id in target_ids],
        "weights": [rounded(layer[0]) for layer in weights],
    }


def draw(found: dict[str, Any], language: Language) -> Figure:
    """A matrix for each layer, averaged over its heads: the translation down, the source across."""
    weights, source, target = found["weights"], found["source"], found["target"]
    across = 2 if len(weights) == 4 else min(3, len(weights))
    down = math.ceil(len(weights) / across)
    label = 0.1 * max(map(len, [*source, *target]))
    wide = max(2.6, 0.23 * len(source)) + label + 0.3
    high = max(1.8, 0.23 * len(target)) + label + 0.5
    note = pick(NOTE, language, text=found["text"], target=found["translation"])
    figure = canvas(max(5.5, across * wide), down * high, pick(TITLE, language), note)
    grid = figure.subplots(down, across, squeeze=False)
    for axes in grid.flat[len(weights) :]:
        axes.set_axis_off()
    for number, (axes, heads) in enumerate(zip(grid.flat, weights, strict=False)):
        mean = [[sum(cells) / len(heads) for cells in zip(*rows, strict=True)] for rows in zip(*heads, strict=True)]
        heat(axes, mean, target, source, low=0.0, square=False)
        axes.set_title(pick(LAYER if len(heads) > 1 else ONE, language, number=number + 1, heads=len(heads)), pad=8)
        if number % across == 0:
            axes.set_ylabel(pick(TARGET, language))
        axes.set_xlabel(pick(SOURCE, language))
    return figure


PICTURE = Picture(
    "cross-attention",
    Text("which source words each word of a translation looks at", "译文的每个词在看原文的哪些词"),
    data,
    draw,
    needs="translator",
)
