"""BLEU against sentence length, for each translator whose result is given.

A sequence-to-sequence RNN without attention has to press the whole sentence into one vector, and fails on long ones (Cho et al.
2014; Bahdanau et al. 2015, figure 2). The numbers are those of the stage `translate` (its result.json) or of
`duihua translate score --json`, each bucket's BLEU over all its sentences together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from duihua.errors import DataError
from duihua.report.inside.picture import Picture
from duihua.report.inside.style import LINE, SERIES, Language, canvas, pick, plain
from duihua.report.inside.subject import Subject
from duihua.report.texts import Text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = Text("BLEU by the length of the sentence", "BLEU 随句子长度的变化")
UNITS = {
    "words": Text("words in the source sentence", "源句的词数"),
    "characters": Text("characters in the source sentence", "源句的字数"),
}
NOTE = Text(
    "A bucket's BLEU is of all its sentences together; below each length the number of sentences. Hollow: fewer than "
    "{few}, mostly chance. {signatures}",
    "每一组的 BLEU 由该组全部句子一起计算；长度下方为句子数。空心：不足 {few} 句，多半出于偶然。{signatures}",
)
FEW = 20
"""Sentences of a bucket below which its BLEU says next to nothing."""


def data(subject: Subject) -> dict[str, Any]:
    """models: name, direction, bleu and its signature of the whole test, buckets of {length, sentences, bleu}; unit."""
    models, unit = [], "words"
    for name, result in subject.measured(["by_length", "test"], "BLEU by sentence length").items():
        for direction, test in _tests(result).items():
            by_length = test.get("by_length") if isinstance(test, dict) else None
            if not by_length:
                continue
            unit = by_length.get("unit", unit)
            buckets = [{**bucket, "bleu": bucket["bleu"]["value"]} for bucket in by_length["buckets"]]
            models.append(
                {
                    "name": name,
                    "direction": direction,
                    "bleu": test["bleu"]["value"],
                    "signature": test["bleu"]["signature"],
                    "buckets": buckets,
                }
            )
    if not models:
        raise DataError(
            "no result holds BLEU by sentence length",
            where="--measurements",
            remedy="Give the folder of a translate stage",
        )
    return {"unit": unit, "models": models}


def _tests(result: dict[str, Any]) -> dict[str, Any]:
    """The scores of each direction: several of a stage, one of `translate score`, which names it where it knows it."""
    if result.get("by_length"):
        return {str(result.get("direction") or ""): result}
    tests = result["test"]
    return tests if isinstance(tests, dict) else {}


def draw(found: dict[str, Any], language: Language) -> Figure:
    """A line for each translator over the buckets."""
    models = found["models"]
    signatures = "; ".join(sorted({model["signature"] for model in models}))
    figure = canvas(7.6, 3.8, pick(TITLE, language), plain(pick(NOTE, language, few=FEW, signatures=signatures)))
    axes = figure.add_subplot()
    lengths = list(dict.fromkeys(bucket["length"] for model in models for bucket in model["buckets"]))
    lengths.sort(key=lambda name: int(name.rstrip("+").split("-")[0]))
    counts = {bucket["length"]: bucket["sentences"] for model in models for bucket in model["buckets"]}
    several = len({model["direction"] for model in models}) > 1
    for model, colour in zip(models, SERIES * 3, strict=False):
        points = sorted((lengths.index(bucket["length"]), bucket["bleu"]) for bucket in model["buckets"])
        name = f"{model['name']} {model['direction']}".rstrip() if several else model["name"]
        enough = [point for point in points if counts[lengths[point[0]]] >= FEW]
        axes.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=4, markerfacecolor="white",
                  linestyle=":", linewidth=1.0)  # fmt: skip
        axes.plot(*(zip(*enough, strict=True) if enough else ([], [])), color=colour, marker="o", markersize=4,
                  label=plain(f"{name}: {model['bleu']:.1f}"))  # fmt: skip
    axes.set_xticks(range(len(lengths)), [f"{length}\n({counts[length]})" for length in lengths])
    axes.set_ylim(bottom=0)
    axes.yaxis.grid(True, color=LINE)
    axes.set_xlabel(pick(UNITS.get(found["unit"], UNITS["words"]), language))
    axes.set_ylabel("BLEU")
    axes.legend()
    return figure


PICTURE = Picture(
    "bleu-by-length",
    Text("BLEU against sentence length for each translator", "各翻译模型的 BLEU 随句长的变化"),
    data,
    draw,
    needs="measurements",
)
