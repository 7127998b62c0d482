"""What the models say: BLEU with its signature, the greetings one by one, and the same prompt before three models."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup, escape

from duihua.report.components import (
    both,
    dialogue,
    estimate,
    heading,
    joined,
    note,
    number,
    rate,
    said,
    t,
    table,
)
from duihua.report.run_record import RunRecord, dig
from duihua.report.texts import TEXTS

MODELS = ("base", "sft", "ppo")


def replies(record: RunRecord) -> Markup | None:
    """BLEU, repetition and reward per model, greetings."""
    result = record.result("evaluate")
    if not result:
        return None
    parts = [*_per_model(result), *_bleu(result), *_greetings(result)]
    return joined(parts) if parts else None


def samples(record: RunRecord) -> Markup | None:
    """Sample conversations of base, SFT and PPO side by side."""
    found = [one for one in record.result("evaluate").get("samples") or [] if isinstance(one, Mapping)]
    if not found:
        return None
    present = [model for model in MODELS if any(model in one for one in found)]
    parts = [note(t("samples.note"))]
    for one in found:
        columns = Markup("").join(
            Markup("<div{}><h4>{}</h4><p>{}</p></div>").format(
                Markup(' class="chosen"') if model == present[-1] else "", t(f"model.{model}"), said(one.get(model))
            )
            for model in present
        )
        width = "three" if len(present) == 3 else "two"
        parts.append(
            Markup('<div class="sample">{}<div class="replies {}">{}</div></div>').format(
                dialogue(one.get("messages"), one.get("prompt")), width, columns
            )
        )
    return joined(parts)


def _per_model(result: Mapping[str, object]) -> list[Markup]:
    rows = [
        (
            t(f"model.{model}"),
            rate(dig(result, f"repetition_rate.{model}")),
            estimate(dig(result, f"reward.{model}")),
        )
        for model in MODELS
        if dig(result, f"repetition_rate.{model}") is not None or dig(result, f"reward.{model}") is not None
    ]
    columns = (t("column.model"), t("column.repetition"), t("column.reward"))
    return [table(columns, rows, "lrr")] if rows else []


def _bleu(result: Mapping[str, object]) -> list[Markup]:
    """A row for each score and language, a column for each model, and the signatures without which scores mean nothing."""
    bleu = result.get("bleu")
    if not isinstance(bleu, Mapping):
        return []
    by_stage = result.get("bleu_by_stage")
    scored = dict(by_stage) if isinstance(by_stage, Mapping) else {str(bleu.get("stage") or ""): bleu}
    found: dict[tuple[str, str], dict[str, Mapping[str, object]]] = {}
    for stage, score in scored.items():
        for code, one in [("all", score), *(dig(score, "per_language") or {}).items()]:
            if isinstance(one, Mapping):
                found.setdefault(("BLEU", code), {})[stage] = one
    for stage in scored:
        chrf = dig(result, f"chrf_by_stage.{stage}")
        if isinstance(chrf, Mapping):
            found.setdefault(("chrF", "all"), {})[stage] = chrf
    rows = [
        (name, _label("language", code), *(number(dig(values, f"{stage}.value"), 1) for stage in scored))
        for (name, code), values in found.items()
    ]
    columns = [t("column.score"), t("column.language"), *(_label("model", stage) for stage in scored)]
    signatures = [
        Markup("<li>{} · {}{} <code>{}</code></li>").format(name, _label("language", code), _colon(), signature)
        for (name, code), values in found.items()
        for signature in dict.fromkeys(str(one.get("signature") or "–") for one in values.values())
    ]
    return [
        heading(t("replies.bleu")),
        note(t("replies.bleu.note")),
        table(columns, rows, "ll" + "r" * len(scored)),
        Markup('<p class="note small">{}</p><ul class="signatures">{}</ul>').format(
            t("replies.signatures"), joined(signatures)
        ),
    ]


def _colon() -> Markup:
    return both(":", "：")


def _label(group: str, code: str) -> Markup:
    return t(f"{group}.{code}") if f"{group}.{code}" in TEXTS else escape(code)


def _greetings(result: Mapping[str, object]) -> list[Markup]:
    columns = []
    for code in ("en", "zh"):
        found = dig(result, f"greetings.{code}")
        if not isinstance(found, Mapping):
            continue
        items = Markup("").join(_greeting(item) for item in found.get("items") or [] if isinstance(item, Mapping))
        columns.append(
            Markup("<div><h4>{} · {}</h4><ul>{}</ul></div>").format(
                t(f"language.{code}"), _matched(found.get("matched"), found.get("total")), items
            )
        )
    if not columns:
        return []
    by_stage = result.get("greetings_by_stage")
    counts = [(stage, found) for stage, found in (by_stage if isinstance(by_stage, Mapping) else {}).items()]
    first = counts[0][0] if counts else "sft"
    parts = [heading(t("replies.greetings")), note(t("replies.greetings.note", model=_label("model", first)))]
    if len(counts) > 1:
        rows = [
            (_label("model", stage), *("{}/{}".format(*(dig(found, code) or "––")) for code in ("en", "zh")))
            for stage, found in counts
        ]
        parts.append(table((t("column.model"), t("language.en"), t("language.zh")), rows, "lrr"))
    parts.append(Markup('<div class="greetings">{}</div>').format(joined(columns)))
    return parts


def _matched(matched: object, total: object) -> Markup:
    return t("replies.matched", matched=number(matched), total=number(total))


def _greeting(item: Mapping[str, object]) -> Markup:
    matched = bool(item.get("matched"))
    return Markup(
        '<li class="{}"><i class="tick" aria-hidden="true">{}</i><span class="hidden">{}</span>'
        "<div><p>{}</p><p>{}</p></div></li>"
    ).format(
        "yes" if matched else "no",
        "✓" if matched else "·",
        t("replies.yes" if matched else "replies.no"),
        said(item.get("prompt")),
        said(item.get("reply")),
    )
