"""Translators: what they learnt from, the score of the test with signature and interval, and sentences to judge by oneself.

Why the signature stands under every table of scores: BLEU depends on how texts are cut, smoothed and compared, and two figures
of different signatures say nothing about each other. Why by length: a network that squeezes a sentence into one vector fails
on long ones, which one number for the whole test hides. The curves over the steps stand among the training curves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from markupsafe import Markup, escape

from duihua.report.components import estimate, folded, heading, joined, note, number, said, stage_name, t, table
from duihua.report.run_record import RunRecord, dig, finite
from duihua.report.texts import TEXTS

SCORES = {"bleu": "BLEU", "chrf": "chrF"}
KEPT = ("last", "averaged", "best")
PARTS = ("train", "validation", "test")


def translate(record: RunRecord) -> Markup | None:
    """Every translator of the run that has a result, in order."""
    stages = [stage for stage in record.stages if stage.stage == "translate" and stage.result]
    parts: list[Markup] = []
    for stage in stages:
        if len(stages) > 1:
            parts.append(heading(stage_name(stage)))
        result = stage.result
        parts += [note(_facts(result)), *_pairs(result), *_test(result), *_lengths(result), *_weights(result)]
        parts += _samples(result)
    return joined([note(t("translate.note")), *parts]) if parts else None


def direction_name(direction: object) -> Markup:
    """ "fr-en" as French → English, in both languages; a code without a name stays a code."""
    names = [
        t(f"language.{code}") if f"language.{code}" in TEXTS else escape(code) for code in str(direction).split("-")
    ]
    return Markup(" → ").join(names)


def scored(test: object, name: str) -> Any:
    """The score of a test with its interval where the run has one, as `estimate` shows it."""
    interval = dig(test, f"{name}_interval")
    return interval if isinstance(interval, Mapping) else dig(test, f"{name}.value")


def _facts(result: Mapping[str, Any]) -> Markup:
    network = str(result.get("network") or "")
    known = f"translate.network.{network}" in TEXTS
    return t(
        "translate.facts",
        directions=Markup(", ").join(direction_name(one) for one in result.get("directions") or []),
        network=t(f"translate.network.{network}") if known else network,
        parameters=number(result.get("parameters")),
        ids=number(result.get("vocabulary_size")),
        epochs=number(result.get("epochs")),
        steps=number(result.get("steps")),
    )


def _pairs(result: Mapping[str, Any]) -> list[Markup]:
    counts = result.get("pairs")
    if not isinstance(counts, Mapping):
        return []
    rows = [(t(f"translate.part.{part}"), number(counts.get(part))) for part in PARTS]
    parts = [heading(t("translate.pairs")), table([t("translate.part"), t("translate.pairs.count")], rows, "nr")]
    shared = finite(counts.get("train_sharing_a_text_with_test"))
    if shared:
        parts.append(note(t("translate.shared", count=number(int(shared)))))
    return parts


def _test(result: Mapping[str, Any]) -> list[Markup]:
    """A row for each direction and score, and the signatures without which they mean nothing."""
    tests = _tests(result)
    parts = [heading(t("translate.test"))]
    if not tests:
        return [*parts, note(t("translate.no_test"))]
    rows = [
        (direction_name(direction), shown, estimate(scored(test, name), 2), number(test.get("sentences")))
        for direction, test in tests
        for name, shown in SCORES.items()
    ]
    columns = [t("translate.direction"), t("column.score"), t("translate.value"), t("translate.sentences")]
    beam, penalty = dig(result, "search.beam"), str(dig(result, "search.length_penalty") or "–")
    signatures = (
        (direction, shown, dig(test, f"{name}.signature"))
        for direction, test in tests
        for name, shown in SCORES.items()
    )
    return [
        *parts,
        note(t("translate.test.note", beam=number(beam), penalty=penalty)),
        table(columns, rows, "nlrr"),
        _signatures(
            (Markup("{} · {}").format(direction_name(direction), shown), one) for direction, shown, one in signatures
        ),
    ]


def _lengths(result: Mapping[str, Any]) -> list[Markup]:
    """BLEU by the length of the source, folded: it is for the reader who compares networks."""
    parts: list[Markup] = []
    for direction, test in _tests(result):
        buckets = [one for one in dig(test, "by_length.buckets") or [] if isinstance(one, Mapping)]
        if len(buckets) < 2:
            continue
        unit = str(dig(test, "by_length.unit") or "")
        first = t(f"translate.unit.{unit}") if f"translate.unit.{unit}" in TEXTS else escape(unit)
        rows = [
            (str(one.get("length") or "–"), number(one.get("sentences")), number(dig(one, "bleu.value"), 2))
            for one in buckets
        ]
        body = joined(
            [
                table([first, t("translate.sentences"), "BLEU"], rows, "nrr"),
                _signatures((escape("BLEU"), one) for one in {str(dig(each, "bleu.signature")) for each in buckets}),
            ]
        )
        parts.append(folded(t("translate.by_length", direction=direction_name(direction)), body))
    return parts


def _weights(result: Mapping[str, Any]) -> list[Markup]:
    """What the last weights, their mean and the best of them score on validation, and which were kept."""
    candidates = result.get("candidates")
    found = [
        (name, candidates[name])
        for name in KEPT
        if isinstance(candidates, Mapping) and isinstance(candidates.get(name), Mapping) and candidates[name]
    ]
    if not found:
        return []
    rows = [
        (
            Markup("<b>{}</b>").format(t(f"translate.kept.{name}"))
            if name == result.get("kept")
            else t(f"translate.kept.{name}"),
            number(one.get("validation_loss")),
            number(one.get("validation_perplexity"), 2),
            number(one.get("validation_bleu"), 2),
        )
        for name, one in found
    ]
    columns = [t("translate.weights"), t("translate.loss"), t("column.perplexity"), "BLEU"]
    snapshots = number(dig(result, "candidates.averaged_snapshots"))
    return [
        heading(t("translate.weights.title")),
        note(t("translate.weights.note", count=snapshots)),
        table(columns, rows, "nrrr"),
        _signatures(
            (t("translate.validation"), one)
            for one in dict.fromkeys(str(each.get("validation_bleu_signature") or "–") for _, each in found)
        ),
    ]


def _samples(result: Mapping[str, Any]) -> list[Markup]:
    samples = [one for one in result.get("samples") or [] if isinstance(one, Mapping)]
    if not samples:
        return []
    return [heading(t("translate.samples")), note(t("translate.samples.note")), *map(_sample, samples)]


def _sample(one: Mapping[str, Any]) -> Markup:
    answers = Markup('<div class="chosen"><h4>{}</h4><p>{}</p><footer>{}</footer></div>').format(
        t("translate.written"), said(one.get("translation")), direction_name(one.get("direction") or "–")
    )
    if one.get("reference"):
        answers += Markup("<div><h4>{}</h4><p>{}</p></div>").format(t("translate.reference"), said(one["reference"]))
    return Markup('<div class="sample"><p class="prompt">{}</p><div class="replies two">{}</div></div>').format(
        said(one.get("source")), answers
    )


def _signatures(found: Iterable[tuple[Markup, object]]) -> Markup:
    lines = joined(Markup("<li>{} <code>{}</code></li>").format(title, signature or "–") for title, signature in found)
    return Markup('<p class="note small">{}</p><ul class="signatures">{}</ul>').format(t("replies.signatures"), lines)


def _tests(result: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    tests = result.get("test")
    if not isinstance(tests, Mapping):
        return []
    return [(str(direction), test) for direction, test in tests.items() if isinstance(test, Mapping)]
