"""Classifiers: each number beside what always saying the most frequent class would give, and who is taken for whom.

Why the majority class in every row: on uneven classes accuracy and F1 are high without looking at a single text (of MRPC's
pairs two thirds are paraphrases). Why two intervals: one asks what other test items would have shown (Wilson's, beside the
accuracy of the kept classifier), the other what other seeds would have (Student's, beside the mean of several).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from duihua.report.components import estimate, folded, heading, joined, note, number, said, stage_name, t, table
from duihua.report.run_record import RunRecord, StageRecord, dig
from duihua.report.texts import TEXTS

KINDS = ("classify", "bag_of_words")
"""Stages that make a classifier; their results have the same scores."""
MOST_CLASSES = 12
"""Classes of a confusion table that a page is wide enough for; a larger one stands in result.json."""


def classify(record: RunRecord) -> Markup | None:
    """Every stage of the run that made a classifier and has a result, in order."""
    stages = [stage for stage in record.stages if stage.stage in KINDS and stage.result]
    parts: list[Markup] = []
    for stage in stages:
        if len(stages) > 1:
            parts.append(heading(stage_name(stage)))
        parts += _stage(stage)
    return joined([note(t("classify.note")), *parts]) if parts else None


def _stage(stage: StageRecord) -> list[Markup]:
    result = stage.result
    choices = result.get("task") == "multiple_choice"  # whose options' places have no sense of their own
    facts = _bag_facts(result) if stage.stage == "bag_of_words" else _facts(result)
    parts = [note(facts), _scores(result, choices)]
    parts += _seeds(result, choices)
    if not choices:
        parts += _confusion(result)
    parts += _telling_words(result)
    parts += _mistakes(result)
    return parts


def _facts(result: Mapping[str, Any]) -> Markup:
    task = str(result.get("task") or "")
    sentences = [
        t(
            "classify.facts",
            task=t(f"task.{task}") if f"task.{task}" in TEXTS else task,
            train=number(dig(result, "cut.train.examples")),
            heldout=number(dig(result, "cut.heldout.examples")),
        ),
        t("classify.random" if result.get("from_scratch") else "classify.pretrained"),
    ]
    cut = [dig(result, f"cut.{split}.cut_examples") for split in ("train", "heldout")]
    if any(cut):
        shown = {"train": number(cut[0]), "heldout": number(cut[1]), "length": number(result.get("length"))}
        sentences.append(t("classify.cut", **shown))
    return Markup(" ").join(sentences)


def _bag_facts(result: Mapping[str, Any]) -> Markup:
    kinds = {
        name: t(f"bag.{result.get(name)}") if f"bag.{result.get(name)}" in TEXTS else str(result.get(name))
        for name in ("weighting", "classifier")
    }
    heldout = dig(result, "examples.heldout")
    return t(
        "bag.facts",
        **kinds,
        train=number(result.get("trained_on")),
        heldout=number(sum(heldout.values()) if isinstance(heldout, Mapping) else None),
        words=number(result.get("words")),
    )


def _telling_words(result: Mapping[str, Any]) -> list[Markup]:
    """For each class of a bag of words the words that speak most for it."""
    told = result.get("telling_words")
    if not isinstance(told, Mapping) or not told:
        return []
    rows = [
        (_class(label), Markup("<bdi>{}</bdi>").format(", ".join(map(str, words)))) for label, words in told.items()
    ]
    return [heading(t("bag.telling")), table([t("bag.class"), t("bag.words")], rows, "nw")]


def _scores(result: Mapping[str, Any], choices: bool) -> Markup:
    names = {"accuracy": t("classify.accuracy")}
    if not choices:
        if result.get("f1") is not None:
            names["f1"] = t("classify.f1", label=_class(result.get("positive")))
        names |= {"macro_f1": t("classify.macro_f1"), "matthews": t("classify.matthews")}
    over = result.get("over_seeds")
    columns = [t("ppo.measure"), t("classify.kept"), t("classify.majority")]
    if isinstance(over, Mapping):
        columns.append(t("classify.mean", count=number(dig(over, "accuracy.n"))))
    rows = []
    for name, title in names.items():
        row = [title, estimate(result.get(name)), number(_value(dig(result, f"baseline.{name}")))]
        rows.append([*row, estimate(over.get(name))] if isinstance(over, Mapping) else row)
    return table(columns, rows, "n" + "r" * (len(columns) - 1))


def _seeds(result: Mapping[str, Any], choices: bool) -> list[Markup]:
    """Each training by itself, folded; nothing where there was one."""
    found = [one for one in result.get("seeds") or [] if isinstance(one, Mapping)]
    if len(found) < 2:
        return []
    names = ("accuracy",) if choices else ("accuracy", "macro_f1", "matthews")
    rows = [(number(one.get("seed")), *(number(one.get(name)) for name in names)) for one in found]
    columns = [t("classify.seed"), *(t(f"classify.{name}") for name in names)]
    return [folded(t("classify.seeds", count=number(len(found))), table(columns, rows, "n" + "r" * len(names)))]


def _confusion(result: Mapping[str, Any]) -> list[Markup]:
    labels, counts = dig(result, "confusion.labels") or [], dig(result, "confusion.counts") or []
    if not labels or len(labels) != len(counts):
        return []
    parts = [heading(t("classify.confusion"))]
    if len(labels) > MOST_CLASSES:
        return [*parts, note(t("classify.confusion.large", count=number(len(labels))))]
    rows = [
        [
            _class(label),
            *(Markup("<b>{}</b>").format(number(count)) if i == j else number(count) for j, count in enumerate(row)),
        ]
        for i, (label, row) in enumerate(zip(labels, counts, strict=True))
    ]
    columns = [t("classify.true"), *map(_class, labels)]
    return [*parts, note(t("classify.confusion.note")), table(columns, rows, "n" + "r" * len(labels))]


def _mistakes(result: Mapping[str, Any]) -> list[Markup]:
    found = [one for one in result.get("mistakes") or [] if isinstance(one, Mapping)]
    if not found:
        return []
    return [heading(t("classify.mistakes")), note(t("classify.mistakes.note")), *map(_mistake, found)]


def _mistake(one: Mapping[str, Any]) -> Markup:
    texts = one.get("texts")
    listed = texts if isinstance(texts, Sequence) and not isinstance(texts, str) else [texts]
    return Markup(
        '<div class="sample"><p class="prompt">{}</p><div class="replies two"><div class="chosen"><h4>{}</h4><p>{}</p></div>'
        "<div><h4>{}</h4><p>{}</p></div></div></div>"
    ).format(
        Markup("<br>").join(said(text) for text in listed),
        t("classify.true"),
        said(one.get("truth")),
        t("classify.said"),
        said(one.get("predicted")),
    )


def _class(label: Any) -> Markup:
    return Markup("<bdi>{}</bdi>").format("" if label is None else str(label))


def _value(stated: Any) -> Any:
    """The number itself where it comes with an interval."""
    return stated.get("value") if isinstance(stated, Mapping) else stated
