"""What the dial said that training would cost, and what came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from duihua.report.components import heading, joined, note, number, stage_name, t, table
from duihua.report.run_record import RunRecord, finite

FIGURES = ("minutes", "minutes_here", "memory_gib", "bits_per_byte")

VERDICTS = {True: "held", None: "elsewhere"}


def prediction(record: RunRecord) -> Markup | None:
    """A table for each stage that predicted something, and the whole recipe's where it states its cost."""
    found = [(stage_name(stage), stage.result.get("prediction")) for stage in record.stages]
    found.append((t("prediction.recipe"), record.run.get("prediction")))
    tables: list[Markup] = []
    shown = [(name, each) for name, each in found if isinstance(each, Mapping)]
    for name, each in shown:
        rows = [row for figure in FIGURES if (row := _row(figure, each.get(figure))) is not None]
        if rows:
            columns = [t(f"column.{key}") for key in ("figure", "predicted", "achieved", "difference")]
            tables += [heading(name), table(columns, rows, "lrrr")]
    return joined([note(t("prediction.note")), *tables]) if tables else None


def _row(figure: str, found: Any) -> tuple[object, ...] | None:
    if not isinstance(found, Mapping) or finite(found.get("predicted")) is None:
        return None
    predicted: object = number(found["predicted"], 2)
    if finite(found.get("low")) is not None:
        predicted = Markup('{} <span class="muted interval">[{}, {}]</span>').format(
            predicted, number(found["low"], 2), number(found["high"], 2)
        )
    ratio = finite(found.get("ratio"))
    change = "–" if ratio is None else f"{100 * (ratio - 1):+.0f} %".replace("-", "−")
    held = t(f"prediction.{VERDICTS.get(found.get('held', False), 'missed')}")
    # One column for both: five do not fit a phone.
    difference = Markup('{} <span class="muted interval">{}</span>').format(change, held)
    return t(f"prediction.{figure}"), predicted, number(found.get("achieved"), 2), difference
