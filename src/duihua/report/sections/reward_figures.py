"""What the reward stage measured beside its accuracy: by source, calibration, margins, length, normalisation.

Why in the report too, and not in `duihua doctor reward` alone: PPO climbs the number itself, so whoever reads what PPO changed
wants to see beside it whether the number was surer than it was right, paid for length, or was turned round on one source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from duihua.report.components import both, estimate, heading, joined, note, number, t, table, with_note
from duihua.report.figures import Point, Series, line_chart
from duihua.report.run_record import dig, finite
from duihua.report.texts import TEXTS


def kind_name(name: str) -> Markup:
    """The name of a kind of pair in both languages, where it is one of ours."""
    key = f"reward.kind.{name}"
    return t(key) if key in TEXTS else escape(name)


def flag(on: bool) -> Markup:
    """The sign in front of a figure that is worth a look."""
    return Markup('<i class="flag" aria-hidden="true">!</i> ') if on else Markup("")


def by_source(result: Mapping[str, Any]) -> list[Markup]:
    """Accuracy with its interval for each source and kind of pair."""
    rows = [
        (
            with_note(escape(row.get("source") or ""), kind_name(str(row.get("kind")))),
            Markup("{}{}").format(flag(_turned(row)), estimate(row)),
            number(row.get("n")),
        )
        for row in _mappings(result.get("sources"))
    ]
    if not rows:
        return []
    columns = [t(f"column.{name}") for name in ("source", "accuracy95", "pairs")]
    return [heading(t("reward.sources")), note(t("reward.sources.note")), table(columns, rows, "nrr")]


def _turned(row: Mapping[str, Any]) -> bool:
    """Whether the worse reply wins for certain."""
    high = finite(row.get("high"))
    return bool(row.get("n")) and high is not None and high < 0.5


def charts(result: Mapping[str, Any]) -> list[Markup]:
    """The calibration curve and the histogram of the margins, side by side."""
    drawn = [*_calibration(result), *_margins(result)]
    return [Markup('<div class="charts">{}</div>').format(joined(drawn))] if drawn else []


def _calibration(result: Mapping[str, Any]) -> list[Markup]:
    bins = _mappings(result.get("calibration_curve"))
    points = [
        (sure, right)
        for one in bins
        if (sure := finite(one.get("confidence"))) is not None and (right := finite(one.get("right"))) is not None
    ]
    if not points:
        return []
    pairs = sum(int(finite(one.get("n")) or 0) for one in bins)
    return [
        line_chart(
            t("reward.calibration_curve"),
            t("reward.right_share"),
            [Series(points, "faint"), Series(points, "dots")],
            x_label=t("reward.confidence"),
            diagonal=True,
            summary=t("reward.calibration.summary", error=number(result.get("calibration_error")), n=number(pairs)),
        )
    ]


def _margins(result: Mapping[str, Any]) -> list[Markup]:
    bins = [
        (low, high, count)
        for one in _mappings(result.get("margins"))
        if (low := finite(one.get("low"))) is not None
        and (high := finite(one.get("high"))) is not None
        and (count := finite(one.get("n"))) is not None
    ]
    if not any(count for _, _, count in bins):
        return []
    # The middle edge is exactly 0; half a step apart from it on either side is no doubt.
    wrong, right = ([one for one in bins if (one[0] + one[1] < 0) == below] for below in (True, False))

    def label(name: str, part: Sequence[tuple[float, float, float]]) -> Markup:
        return t(f"reward.margins.{name}", n=number(int(sum(count for _, _, count in part))))

    series = [Series(steps(wrong), "second", label("wrong", wrong))] if wrong else []
    series += [Series(steps(right), "strong", label("right", right))] if right else []
    return [
        line_chart(
            t("reward.margins"),
            t("column.pairs"),
            series,
            x_label=t("reward.margin"),
            summary=t("reward.margins.summary"),
        )
    ]


def steps(bins: Sequence[tuple[float, float, float]]) -> list[Point]:
    """The outline of bars (from, to, height) that stand on 0: one line that goes up and down at their edges."""
    outline = [(x, count) for low, high, count in bins for x in (low, high)]
    return [(bins[0][0], 0.0), *outline, (bins[-1][1], 0.0)]


def trust(result: Mapping[str, Any]) -> list[tuple[object, object]]:
    """The single figures as rows of a table: name with what it should be, value."""
    rows: list[tuple[object, object]] = [
        (with_note(t("reward.calibration"), t("reward.calibration.note")), estimate(result.get("calibration_error"))),
        (with_note(t("reward.length"), t("reward.length.note")), estimate(result.get("length_correlation"))),
    ]
    if finite(result.get("chosen_is_longer")) is not None:
        rows.append((with_note(t("reward.longer"), t("reward.longer.note")), number(result["chosen_is_longer"])))
    normalisation = result.get("normalisation")
    about = [t("reward.normalisation.note")]
    if dig(normalisation, "on_reference_policy") is False:
        about.append(t("reward.on_pairs"))
    rows.append((with_note(t("reward.normalisation"), both("; ", "；").join(about)), _spread(normalisation)))
    checked = dig(normalisation, "verification")
    if isinstance(checked, Mapping) and finite(checked.get("mean")) is not None:
        name = with_note(t("reward.verified"), t("reward.verified.note", n=number(checked.get("n"))))
        rows.append((name, _with_errors(checked)))
    return rows


def _spread(value: Any) -> str:
    if not isinstance(value, Mapping):
        return "–"
    return f"{number(value.get('mean'))} ± {number(value.get('std'))}"


def _with_errors(checked: Mapping[str, Any]) -> Markup:
    """Mean and deviation, each with its standard error."""
    return Markup("<br>").join(
        Markup('{} <span class="muted">± {}</span>').format(
            number(checked.get(name)), number(checked.get(f"{name}_standard_error"))
        )
        for name in ("mean", "std")
    )


def _mappings(rows: Any) -> list[Mapping[str, Any]]:
    return [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
