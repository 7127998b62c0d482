"""What the gates of a recurrent network say, token by token.

Forget near 1: the cell keeps what it knows; input near 1: it writes; output near 1: it shows (the equations are in
nn/recurrent.py). Units are sorted by their mean forget (or update) gate, so that those with a long memory stand together. A
tanh RNN has no gates; of it nothing can be shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from duihua.errors import ConfigError, DataError
from duihua.report.inside.picture import Picture
from duihua.report.inside.style import Language, canvas, heat, pick
from duihua.report.inside.subject import MOST_TOKENS, SENTENCES, Subject, rounded, token_label
from duihua.report.texts import Text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from duihua.text.vocabulary import Span, Vocabulary

MOST_UNITS = 48
PREPARED = "he was born in the city and it was the first of the two"
"""For a vocabulary of prepared words: lower case, without marks, frequent words alone."""
TITLE = Text("The gates of layer {layer}, token by token", "第 {layer} 层的门，逐个词元")
GATES = {
    "forget": Text("forget gate: 1 keeps the cell", "遗忘门：1 表示保留记忆"),
    "input": Text("input gate: 1 writes", "输入门：1 表示写入"),
    "output": Text("output gate: 1 shows", "输出门：1 表示输出"),
    "update": Text("update gate: 1 keeps the state", "更新门：1 表示保留状态"),
    "reset": Text("reset gate: 0 ignores the state", "重置门：0 表示忽略状态"),
}
UNIT = Text("unit, sorted", "单元（已排序）")
NOTE = Text(
    "{cell} of {width} units; {shown} are shown, sorted by their mean {by} gate, those with the longest memory on "
    "top. '{text}'",
    "{cell}，共 {width} 个单元，显示其中 {shown} 个，按平均{by}门排序，记忆最长的在最上面。“{text}”",
)


def data(subject: Subject) -> dict[str, Any]:
    """tokens, and for the last layer gates[name][unit][token], units sorted. Raises DataError for a network without gates."""
    import torch

    from duihua.models.capture import captured
    from duihua.models.recurrent_bundle import load_recurrent

    assert subject.recurrent is not None
    bundle = load_recurrent(subject.recurrent)
    text = subject.text if subject.text is not None else best_known(bundle.vocabulary, subject.language)
    spans = bundle.vocabulary.spans(text)[:MOST_TOKENS]
    ids = [span.id for span in spans]
    if not ids:
        raise ConfigError("there is no text to look at", where="text", remedy="Give a sentence")
    with torch.no_grad(), captured(bundle.network.eval()) as inside:
        bundle.network(torch.tensor([ids]))
    last = inside.gates[-1]
    by = "forget" if "forget" in last else "update"
    if by not in last:
        raise DataError("a tanh RNN has no gates", where=str(subject.recurrent), remedy="Choose an LSTM or a GRU")
    means = last[by][0].mean(dim=0)
    order = means.argsort(descending=True)
    if len(order) > MOST_UNITS:  # evenly through the order, first and last included
        order = order[torch.linspace(0, len(order) - 1, MOST_UNITS).round().long()]
    return {
        "text": text,
        "tokens": list(map(_label, spans)),
        "cell": bundle.config.cell,
        "layer": len(inside.gates),
        "width": len(means),
        "sorted_by": by,
        "gates": {name: rounded(last[name][0].T[order]) for name in GATES if name in last},
    }


def best_known(vocabulary: Vocabulary, language: Language) -> str:
    """The sentence that is shown unless one is given: the usual one of the language, or the first of the others of which the
    vocabulary knows more. English words know a Chinese sentence as a single unknown one, whose gates say nothing."""
    sentences = [SENTENCES[language], *SENTENCES.values(), PREPARED]

    def unknown(text: str) -> float:
        spans = vocabulary.spans(text)
        return sum(not span.known for span in spans) / max(1, len(spans))

    return min(sentences, key=unknown)


def _label(span: Span) -> str:
    label = token_label(span.text.encode("utf-8"))
    return label if span.known else f"<unk:{label}>"


def draw(found: dict[str, Any], language: Language) -> Figure:
    """One heat map a gate, units down and tokens across."""
    gates, tokens = found["gates"], found["tokens"]
    shown = len(next(iter(gates.values())))
    by = {"forget": Text("forget", "遗忘"), "update": Text("update", "更新")}[found["sorted_by"]]
    note = pick(
        NOTE,
        language,
        cell=found["cell"].upper(),
        width=found["width"],
        shown=shown,
        by=pick(by, language),
        text=found["text"],
    )
    panel = max(2.6, 0.2 * len(tokens) + 0.4)
    figure = canvas(panel * len(gates) + 0.9, 4.0, pick(TITLE, language, layer=found["layer"]), note)
    for number, (axes, (name, values)) in enumerate(
        zip(figure.subplots(1, len(gates), squeeze=False)[0], gates.items(), strict=True)
    ):
        picture = heat(axes, values, [], tokens, low=0.0, high=1.0, square=False)
        axes.set_title(pick(GATES[name], language), pad=8)
        if number == 0:
            axes.set_ylabel(pick(UNIT, language))
    figure.colorbar(picture, ax=figure.axes, aspect=30, pad=0.01).outline.set_visible(False)
    return figure


PICTURE = Picture(
    "gates",
    Text("gate activations of a recurrent model on a sentence", "循环模型在一个句子上的门激活"),
    data,
    draw,
    needs="recurrent",
)
