"""The evaluation's tables out of what was measured of each model: pure functions, so that each can be checked by hand.

A score never stands without its signature, and a difference between two models never without its paired standard error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from duihua.data.pairs import Exchange
from duihua.evaluation.bleu import bleu, chrf
from duihua.evaluation.intervals import paired_mean


def bleu_table(items: Sequence[Exchange], likeliest: dict[str, list[str]]) -> dict[str, Any]:
    """{"bleu": of the first talking model, "bleu_by_stage", "chrf_by_stage"}: every score with its signature."""
    if not items or not likeliest:
        return {}
    tables: dict[str, dict[str, Any]] = {}
    chrfs: dict[str, Any] = {}
    for name, texts in likeliest.items():
        references = [[exchange.reply] for exchange in items]
        per_language: dict[str, Any] = {}
        for language in sorted({exchange.language for exchange in items}):
            places = [place for place, exchange in enumerate(items) if exchange.language == language]
            per_language[language] = bleu(
                [texts[place] for place in places], [references[place] for place in places], language
            ).to_dict()
        tables[name] = {**bleu(texts, references, "all").to_dict(), "stage": name, "per_language": per_language}
        chrfs[name] = chrf(texts, references).to_dict()
    return {"bleu": next(iter(tables.values())), "bleu_by_stage": tables, "chrf_by_stage": chrfs}


def repetition_table(repeated: dict[str, list[float]]) -> dict[str, Any]:
    """{"repetition_rate": {model: mean over prompts}, "repetition_change": PPO less SFT, paired by prompt} of each model's
    shares, one a prompt. The change tells a rise from chance: a handful of replies in a thousand repeat anything."""
    if not repeated:
        return {}
    table: dict[str, Any] = {"repetition_rate": {name: sum(each) / len(each) for name, each in repeated.items()}}
    if "sft" in repeated and "ppo" in repeated:
        table["repetition_change"] = paired_mean(repeated["sft"], repeated["ppo"]).to_dict()
    return table


def greetings_table(reports: dict[str, dict[str, dict[str, object]]]) -> dict[str, Any]:
    """{"greetings": of the first model, "greetings_by_stage": {stage: {language: [matched, total]}}} of each model's
    reports, one a language."""
    if not reports:
        return {}
    counts = {
        name: {language: [report["matched"], report["total"]] for language, report in each.items()}
        for name, each in reports.items()
    }
    return {"greetings": next(iter(reports.values())), "greetings_by_stage": counts}
