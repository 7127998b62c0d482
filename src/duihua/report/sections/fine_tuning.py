"""Fine-tuning, source by source: the loss on what is trained on beside what is held out, and what is said word for word.

Why each source stands by itself: a mean over sources of which one is seen twenty times and another half a time describes
neither (stages/source_losses.py, stages/memorisation.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from duihua.report.components import (
    Group,
    estimate,
    folded,
    heading,
    joined,
    note,
    number,
    said,
    signed,
    stage_name,
    t,
    table,
    with_note,
)
from duihua.report.figures import Point, metric_chart
from duihua.report.run_record import RunRecord, StageRecord, dig, finite
from duihua.report.sections.curves import BY_SOURCE, grid

MOST_CHARTS = 12
"""Drawn open; those of more sources are one click away."""


def sft(record: RunRecord) -> Markup | None:
    """Curves and a table for each stage of fine-tuning that measured its sources one by one."""
    stages = [stage for stage in record.stages if stage.stage == "sft"]
    found = [(stage, parts) for stage in stages if (parts := [*_curves(stage), *_table(stage)])]
    if not found:
        return None
    blocks = [note(t("sft.note"))]
    for stage, parts in found:
        blocks += [heading(stage_name(stage)), *parts] if len(found) > 1 else parts
    return joined(blocks)


def _curves(stage: StageRecord) -> list[Markup]:
    """A chart a source, out of the result, which knows the loss before the first step, or out of what is recorded so far."""
    stated = dig(stage.result, "memorised.curve")
    rows = [row for row in stated if isinstance(row, Mapping)] if isinstance(stated, list) else stage.rows
    ((trained, held_out),) = BY_SOURCE.items()
    named = [name.partition("/") for row in rows for name in row]
    charts = []
    for source in dict.fromkeys(source for name, _, source in named if source and name in (trained, held_out)):
        train, heldout = (_points(rows, f"{name}/{source}") for name in (trained, held_out))
        if train or heldout:
            shown = (train, heldout) if train else (heldout,)
            charts.append(metric_chart(said(source), t("unit.nats_token"), *shown))
    if not charts:
        return []
    rest = charts[MOST_CHARTS:]
    more = [folded(t("sft.more", count=len(rest)), grid(rest))] if rest else []
    return [grid(charts[:MOST_CHARTS]), *more]


def _points(rows: Sequence[Mapping[str, Any]], name: str) -> list[Point]:
    found = ((finite(row.get("step")), finite(row.get(name))) for row in rows)
    return [(step, value) for step, value in found if step is not None and value is not None]


def _table(stage: StageRecord) -> list[Markup]:
    sources = [one for one in dig(stage.result, "memorised.sources") or [] if isinstance(one, Mapping)]
    if not sources:
        return []
    rows: list[Sequence[object] | Group] = []
    for source in sources:
        about = {"name": said(source.get("name")), "times": number(source.get("times_seen"), 1)}
        gap = source.get("gap")
        told = t("sft.source_gap", **about, gap=_gap(gap)) if isinstance(gap, Mapping) else t("sft.source", **about)
        rows += [Group(told), _row(source, "train"), _row(source, "heldout")]
    columns = ["translate.part", "sft.loss", "sft.equal", "sft.run", "sft.copied"]
    exact = {part: dig(stage.result, f"memorised.exact.{part}") for part in ("train", "heldout")}
    parts = [table([t(name) for name in columns], rows, "nrrrr"), note(t("sft.columns"))]
    if exact["train"]:
        parts.insert(0, note(t("sft.exact", **{part: _percent(value, " %") for part, value in exact.items()})))
    return parts


def _gap(gap: Mapping[str, Any]) -> Markup:
    return Markup("{} [{}, {}]").format(*(signed(gap.get(name), 2) for name in ("value", "low", "high")))


def _row(source: Mapping[str, Any], part: str) -> Sequence[object]:
    found = source.get(part)
    if not isinstance(found, Mapping):
        known = source.get("heldout_known")
        reason = t("sft.not_measured", count=number(known)) if known else t("sft.none")
        return (with_note(t(f"sft.{part}"), reason if part == "heldout" else ""), *"––––")
    run, people = (finite(dig(found, f"{name}.value")) for name in ("longest_run", "reference_copied"))
    size = {"conversations": number(found.get("conversations", 0)), "prompts": number(found.get("prompts", 0))}
    tokens = {name: number(count, digits) for name, count, digits in (("all", found.get("tokens"), 0), ("run", run, 1))}
    written = t("sft.people", value=number(round(100 * people))) if people is not None and part == "heldout" else ""
    return (
        with_note(t(f"sft.{part}"), t("sft.size", **size)),
        with_note(estimate(found.get("loss"), 2), t("sft.tokens", count=tokens["all"]) if found.get("tokens") else ""),
        _percent(found.get("exact")),
        with_note(_percent(found.get("run_share")), "" if run is None else t("sft.tokens", count=tokens["run"])),
        with_note(_percent(found.get("copied")), written),
    )


def _percent(share: Any, unit: str = "") -> Markup:
    """A share with its interval, in whole per cent."""
    known = [finite(share.get(name)) for name in ("value", "low", "high")] if isinstance(share, Mapping) else [None]
    if any(one is None for one in known):
        return escape("–")
    value, low, high = (number(round(100 * one)) for one in known if one is not None)
    return Markup('{}{} <span class="muted interval">{}–{}</span>').format(value, unit, low, high)
