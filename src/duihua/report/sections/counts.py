"""Counted language models: what each token of context gains, and what such a model writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup, escape

from duihua.report.components import estimate, heading, joined, note, number, said, stage_name, t, table
from duihua.report.run_record import RunRecord, dig, finite


def ngram(record: RunRecord) -> Markup | None:
    """Every n-gram stage of the run that has a result, in order."""
    stages = [stage for stage in record.stages if stage.stage == "ngram" and stage.result]
    parts: list[Markup] = []
    for stage in stages:
        if len(stages) > 1:
            parts.append(heading(stage_name(stage)))
        parts += [note(_facts(stage.result)), *_orders(stage.result), *_samples(stage.result)]
    return joined([note(t("ngram.note")), *parts]) if parts else None


def _facts(result: Mapping[str, Any]) -> Markup:
    kind = str(result.get("vocabulary") or "")
    sentences = [
        t(
            "ngram.facts",
            order=number(result.get("order")),
            tokens=number(result.get("tokens")),
            ids=number(result.get("vocabulary_size")),
            kind=_kind(kind),
        )
    ]
    bits, bound = (finite(dig(result, f"{key}.all")) for key in ("bits_per_byte", "bits_per_byte_at_least"))
    if bits is not None:
        sentences.append(t("ngram.bits", bits=number(bits)))
    elif bound is not None:
        share = finite(result.get("unknown_share")) or 0.0
        sentences.append(t("ngram.bits_at_least", bits=number(bound), share=f"{share:.1%}"))
    return Markup(" ").join(sentences)


def _kind(kind: str) -> Markup:
    """ "tokens", "characters", or words with how they were cut."""
    known = {"tokens": "bytes", "characters": "characters", "words (jieba)": "words-jieba"}.get(kind)
    if known is None:
        known = "words" if kind.startswith("words") else None
    return escape(kind) if known is None else t(f"tokens.kind.{known}")


def _orders(result: Mapping[str, Any]) -> list[Markup]:
    orders = result.get("orders")
    if not isinstance(orders, Mapping) or not orders:
        return []
    columns = [t("ngram.order"), t("ngram.ngrams"), t("column.perplexity")]
    rows = [
        (escape(order), number(dig(one, "ngrams")), estimate(dig(one, "perplexity.all"), 1))
        for order, one in orders.items()
    ]
    return [table(columns, rows, "nrr")]


def _samples(result: Mapping[str, Any]) -> list[Markup]:
    samples = [text for text in result.get("samples") or [] if isinstance(text, str)]
    if not samples:
        return []
    parts = [heading(t("ngram.samples")), note(t("ngram.samples.note"))]
    return [
        *parts,
        *(Markup('<div class="sample"><p class="prompt">{}</p></div>').format(said(text)) for text in samples),
    ]
