"""Was the reward gamed: the gain of each method against its distance from the start, and scores while the policies trained.

A policy that is pushed far enough against a reward model finds what only that model likes (Gao et al. 2023, "Scaling Laws for
Reward Model Overoptimization"). It shows where the score of a judge that nobody trained against, or the gold reward, turns
down while the score that is trained on goes on rising.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from duihua.report.components import joined, note, number, signed, stage_name, t
from duihua.report.figures import Mark, Point, Series, line_chart
from duihua.report.run_record import RunRecord, StageRecord, finite
from duihua.report.sections.compare import lettered, letters

JUDGE, REWARD, GOLD, KL = "heldout_judge", "heldout_reward", "heldout_gold", "heldout_kl"


def gaming(record: RunRecord) -> Markup | None:
    """The frontier of the comparison, and a curve for each stage that was measured while it trained."""
    charts = [*_frontier(record.result("compare")), *(chart for stage in record.stages for chart in _curve(stage))]
    if not charts:
        return None
    return joined([note(t("gaming.note")), Markup('<div class="charts">{}</div>').format(joined(charts))])


def _frontier(result: Mapping[str, Any]) -> list[Markup]:
    found = result.get("frontier")
    if not isinstance(found, Mapping):
        return []
    points = [
        (str(one.get("model")), kl, gain)
        for one in found.get("points") or []
        if isinstance(one, Mapping)
        and (kl := finite(one.get("kl"))) is not None
        and (gain := finite(one.get("value"))) is not None
    ]
    curve = _points(found.get("best_of_n"), "kl", "gain")
    if not points:
        return []
    known = letters(result)
    series = [Series([(0.0, 0.0), *((kl, gain) for _, kl, gain in points)], "dots")]
    if len(curve) > 1:
        series.insert(0, Series(curve, "second", t("gaming.best_of", n=number(result.get("best_of")))))
    legend = joined(
        Markup('<span class="key">{} {}</span>').format(
            lettered(name, result), t("gaming.point", kl=number(kl, 2), gain=signed(gain, 2))
        )
        for name, kl, gain in points
    )
    return [
        line_chart(
            t("gaming.frontier"),
            t("gaming.gain"),
            series,
            summary=legend,
            x_label=t("gaming.kl"),
            marks=[Mark((kl, gain), known.get(name, "")) for name, kl, gain in points],
        )
    ]


def _curve(stage: StageRecord) -> list[Markup]:
    found = stage.result.get("over_optimisation")
    if not isinstance(found, Mapping):
        return []
    rows = [row for row in found.get("rows") or [] if isinstance(row, Mapping)]
    judged, rewarded, gold = (_points(rows, KL, name) for name in (JUDGE, REWARD, GOLD))
    if len(rewarded) < 2:
        return []
    if found.get("judge") == "rules":  # what it is trained on is what judges it: one line, not two on top of each other
        series = [Series(rewarded, "strong", t("gaming.rules"))]
    else:
        series = [Series(rewarded, "second", t("gaming.reward"))]
        if len(judged) > 1:
            series.append(
                Series(judged, "strong", t("gaming.gold" if found.get("judge") == "gold" else "gaming.judge"))
            )
    if gold:  # beside a judge: who chooses the step is the judge, and these say how well
        series.append(Series(gold, "dots", t("gaming.gold")))
    best = next((row for row in rows if row.get("step") == found.get("best_step")), rows[-1])
    name = JUDGE if found.get("best_by", JUDGE) == JUDGE and len(judged) > 1 else REWARD
    kl, value = finite(best.get(KL)), finite(best.get(name))
    marks = [Mark((kl, value), "★")] if kl is not None and value is not None else []
    kept = found.get("kept_step")
    return [
        line_chart(
            t("gaming.curve", stage=stage_name(stage)),
            t("gaming.score", n=number(found.get("prompts"))),
            series,
            summary=joined(
                [
                    t("gaming.best", step=number(best.get("step")), value=signed(value, 2)),
                    *([t("gaming.by_reward")] if name == REWARD else []),
                    t("gaming.last") if kept is None else t("gaming.kept", step=number(kept)),
                ]
            ),
            x_label=t("gaming.kl"),
            marks=marks,
        )
    ]


def _points(rows: Any, x: str, y: str) -> list[Point]:
    pairs = [(finite(row.get(x)), finite(row.get(y))) for row in rows or [] if isinstance(row, Mapping)]
    return [(a, b) for a, b in pairs if a is not None and b is not None]
