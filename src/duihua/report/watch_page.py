"""The live page of `duihua watch --page`: how one training goes, or several side by side, drawn anew while it is looked at.

Why whole pieces of HTML and not numbers for a script to draw: charts, names and units are those of the report, in both
languages, and a page that is only replaced cannot show another thing than the report will. The script asks this machine for
`content` every few seconds and puts in what changed. Everything is read from files, so nothing that trains is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from markupsafe import Markup

from duihua.errors import ConfigError, DuihuaError
from duihua.report.components import brief, duration, folded, joined, note, number, said, t, table, with_note
from duihua.report.document import CLOSED, document
from duihua.report.figures import Point, Series, line_chart, smooth, thin
from duihua.report.run_record import StageRecord, finite, read_metrics
from duihua.report.sections.curves import grid, metric_names, metric_title, stage_chart, telling
from duihua.report.texts import TEXTS
from duihua.report.watching import StageView, chosen_stage, view_stage, watched_stages
from duihua.stages.diagnosis import Finding
from duihua.version import __version__

AXES = ("step", "tokens", "minutes")
MOST_COLOURS = 6
CARDS = (
    "loss", "bits_per_byte", "tokens_per_second", "utilisation", "gradient_norm", "learning_rate", "heldout_loss",
    "heldout_bits_per_byte", "reward", "kl", "accuracy", "skipped_steps",
)  # fmt: skip
"""What has a card of its own, where it is known."""
COMPARED = (
    "loss", "bits_per_byte", "heldout_bits_per_byte", "reward", "tokens_per_second", "utilisation", "gradient_norm",
)  # fmt: skip

PAGE = Markup("""<main class="alone watch-page">
<p class="partial lost" id="lost" hidden>{lost}</p>
<div id="content" aria-live="off">{content}</div>
<footer class="end">{footer}</footer>
</main>
""")


class Watched:
    """One run as it is now: a view of a stage, its lines, and what other stages there are."""

    def __init__(self, run: Path, stage: str) -> None:
        """Raises DataError where nothing has been logged yet."""
        self.name = run.resolve().name
        self.stages = [view_stage(folder, self.name) for folder in watched_stages(run)]
        folder = chosen_stage(run, stage)
        self.view = next(view for view in self.stages if view.name == folder.name)
        rows, unreadable = read_metrics(folder / "metrics.jsonl")
        self.record = StageRecord(
            name=self.view.name, stage=self.view.stage, directory=folder, seconds=None, status="", config={}, result={},
            rows=with_derived(rows), unreadable_lines=unreadable, weights=None, weights_bytes=0, directory_bytes=0,
        )  # fmt: skip


def with_derived(rows: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """The rows with minutes, and with tokens where an evaluation does not say them."""
    known: list[Mapping[str, Any]] = []
    tokens = seconds = 0.0
    for row in rows:
        tokens, seconds = finite(row.get("tokens")) or tokens, finite(row.get("seconds")) or seconds
        known.append({**row, "tokens": tokens, "seconds": seconds})
    return tuple(known)


def write_page(runs: Sequence[Path], stage: str = "", axis: str = "step", every: float = 2.0) -> str:
    """The whole page. every: seconds between two looks of its script. Asked for with other words, it shows the same as with
    none."""
    names = " · ".join(run.resolve().name for run in runs)
    body = PAGE.format(
        lost=t("watch.lost"),
        content=Markup(write_content(runs, stage, axis)),
        footer=t("watch.footer", version=__version__),
    )
    return document(
        names,
        body,
        styles=("report.css", "watch.css"),
        scripts=("report.js", "watch.js"),
        data={"every": every},
        policy=("connect-src 'self'", *CLOSED),
    )


def write_content(runs: Sequence[Path], stage: str = "", axis: str = "step") -> str:
    """What is replaced while the page is open."""
    axis = axis if axis in AXES else "step"
    found: list[Watched] = []
    waiting: list[Markup] = []
    for run in runs:
        try:
            found.append(Watched(run, stage))
        except ConfigError:
            waiting.append(note(t("watch.no_stage", run=run.resolve().name, stage=stage)))
        except DuihuaError:
            waiting.append(note(t("watch.waiting", run=run.resolve().name)))
    title = Markup('<div class="title"><span class="kicker">{}</span><h1>{}</h1>{}</div>').format(
        t("watch.kicker"), " · ".join(run.resolve().name for run in runs), joined(waiting)
    )
    if not found:
        return str(title)
    parts = [title, _stage_links(found, stage, axis)]
    if len(found) == 1:
        (one,) = found
        parts += [_place(one.view), _cards(one.view), _findings(one), _sample(one), _own_curves(one)]
    else:
        parts += [_comparison(found), _axis_links(stage, axis), _compared_curves(found, axis)]
        parts += [_findings(one) for one in found] + [_sample(one) for one in found]
    return str(joined(part for part in parts if part))


def _link(label: object, here: bool, **words: str) -> Markup:
    address = "?" + urlencode({name: value for name, value in words.items() if value})
    return Markup('<a href="{}"{}>{}</a>').format(address, Markup(' aria-current="true"') if here else "", label)


def _stage_links(found: Sequence[Watched], stage: str, axis: str) -> Markup:
    """Every stage that any of the runs has, each a link; those that are shown are marked."""
    if len(found) > 1 and all(len(one.stages) == 1 for one in found):
        return Markup("")  # nothing to choose between
    names = list(dict.fromkeys(view.name for one in found for view in one.stages))
    shown = {one.view.name for one in found}
    states = {view.name: view.state for one in found for view in one.stages}
    kinds = {view.name: view.stage for one in found for view in one.stages}
    links = [
        Markup('<li class="{}">{}</li>').format(
            states[name], _link(_stage_title(name, kinds[name]), name in shown, stage=name, axis=axis)
        )
        for name in names
    ]
    return Markup('<nav class="stages" aria-label="{}"><ol>{}</ol></nav>').format("Stages 阶段", joined(links))


def _stage_title(name: str, kind: str = "") -> Markup:
    """Of a stage by its folder's name, with its kind before it where the folder is called otherwise."""
    if f"stage.{name}" in TEXTS:
        return t(f"stage.{name}")
    known = f"stage.{kind}" in TEXTS
    return Markup("{} ({})").format(t(f"stage.{kind}"), name) if known else Markup("{}").format(name)


def _axis_links(stage: str, axis: str) -> Markup:
    links = [_link(t(f"watch.axis.{name}"), name == axis, stage=stage, axis=name) for name in AXES]
    return Markup('<p class="axes">{} {}</p>').format(t("watch.axis"), joined(links))


def _place(view: StageView) -> Markup:
    """How far it is: a bar, the step, the time so far and the time that is left."""
    share = min(1.0, view.step / view.steps) if view.steps else None
    step = (
        t("watch.step", step=number(view.step), steps=number(view.steps))
        if view.steps
        else t("watch.step_alone", step=number(view.step))
    )
    facts = [step, t("watch.so_far", time=duration(view.seconds))]
    if view.seconds_left is not None:
        facts.append(t("watch.left", left=duration(view.seconds_left)))
    bar = (
        Markup('<div class="bar" role="progressbar" aria-valuenow="{0:.0f}" aria-valuemin="0" aria-valuemax="100">'
               '<i style="width:{0:.1f}%"></i></div>').format(100 * share)
        if share is not None
        else Markup("")
    )  # fmt: skip
    return Markup('<div class="place {}"><p><span class="badge">{}</span> {}</p>{}</div>').format(
        view.state, t(f"watch.{view.state}"), Markup(" · ").join(facts), bar
    )


def _figure(view: StageView, name: str) -> str:
    value = view.figures[name]
    if name == "utilisation":
        return f"{100 * value:.0f} %"
    return number(round(value)) if name in ("tokens_per_second", "skipped_steps") else brief(value)


def _cards(view: StageView) -> Markup:
    cards = [
        Markup('<div class="card" data-figure="{}"><span class="label">{}</span><b>{}</b></div>').format(
            name, t(f"watch.{name}"), _figure(view, name)
        )
        for name in CARDS
        if name in view.figures
    ]
    return Markup('<div class="cards">{}</div>').format(joined(cards))


def _findings(one: Watched) -> Markup:
    """What the doctor finds not as it should be, as the report shows what it has checked."""
    if not one.view.findings:
        return Markup("")
    items = joined(Markup("<li>{}</li>").format(_finding(finding)) for finding in one.view.findings)
    return Markup('<section class="latest"><h2>{} <small>{}</small></h2>{}<ul class="checks">{}</ul></section>').format(
        t("watch.findings"), one.name, note(t("watch.findings.note")), items
    )


def _finding(finding: Finding) -> Markup:
    look, sign = ("bad", "✕") if finding.state == "problem" else ("watch", "!")
    said_of_it = ". ".join(part for part in (finding.meaning, finding.remedy) if part)
    text = with_note(Markup("<b>{}</b>: {}").format(finding.check, finding.found), said_of_it and f"{said_of_it}.")
    return Markup(
        '<div class="check {}"><b class="badge"><i aria-hidden="true">{}</i> {}</b><span lang="en">{}</span></div>'
    ).format(look, sign, t(f"watch.{finding.state}"), text)


def _sample(one: Watched) -> Markup:
    if not one.view.sample:
        return Markup("")
    prompt, reply = one.view.sample
    return Markup(
        '<section class="latest"><h2>{} <small>{}</small></h2><div class="sample"><p class="prompt">{}</p>'
        '<div class="replies"><div><p>{}</p></div></div></div></section>'
    ).format(t("watch.sample"), one.name, said(prompt), said(reply))


def _own_curves(one: Watched) -> Markup:
    metrics = metric_names(one.record)
    first = telling(one.record.stage, metrics)
    others = [metric for metric in metrics if metric not in first]
    more = grid([stage_chart(one.record, metric) for metric in others]) if others else Markup("")
    return Markup('<section id="curves"><h2>{}</h2>{}{}</section>').format(
        t("watch.curves"),
        grid([stage_chart(one.record, metric) for metric in first]),
        folded(t("curves.more", stage=_stage_title(one.record.stage)), more) if others else "",
    )


def _comparison(found: Sequence[Watched]) -> Markup:
    names = [name for name in COMPARED if any(name in one.view.figures for one in found)]
    columns = ["run", "stage", "state", "place", "remaining"]
    rows = []
    for place, one in enumerate(found):
        view = one.view
        key = Markup('<span class="key"><i class="run{}"></i>{}</span>').format(1 + place % MOST_COLOURS, view.run)
        step = number(view.step) + (f" / {number(view.steps)}" if view.steps else "")
        left = duration(view.seconds_left) if view.seconds_left is not None else "–"
        known = [_figure(view, name) if name in view.figures else "–" for name in names]
        rows.append([key, _stage_title(view.stage), t(f"watch.{view.state}"), step, left, *known])
    heads = [*(t(f"watch.{name}") for name in columns), *(t(f"watch.{name}") for name in names)]
    return Markup('<section id="compared"><h2>{}</h2>{}</section>').format(
        t("watch.compared"), table(heads, rows, "nllrr" + "r" * len(names))
    )


def _compared_curves(found: Sequence[Watched], axis: str) -> Markup:
    """A chart for each metric that at least two of the runs have recorded, a line for each run."""
    kind = found[0].record.stage
    names = [metric_names(one.record) for one in found]
    shared = [
        metric for metric in dict.fromkeys(m for own in names for m in own) if sum(metric in own for own in names) > 1
    ]
    first = telling(kind, shared)
    charts = {metric: _compared_chart(found, kind, metric, axis) for metric in shared}
    others = [chart for metric, chart in charts.items() if metric not in first]
    return Markup('<section id="curves"><h2>{}</h2>{}{}</section>').format(
        t("watch.curves"),
        grid([charts[metric] for metric in first]),
        folded(t("curves.more", stage=_stage_title(kind)), grid(others)) if others else "",
    )


def _compared_chart(found: Sequence[Watched], kind: str, metric: str, axis: str) -> Markup:
    title, unit = metric_title(kind, metric)
    series = []
    for place, one in enumerate(found):
        points = _points(one.record.rows, metric, axis)
        if points:
            drawn = thin(smooth(points) if len(points) >= 30 and metric != "learning_rate" else points)
            series.append(Series(drawn, _look(place), Markup("{}").format(one.name)))
    return line_chart(title, unit, series, x_label=t(f"watch.axis.{axis}"))


def _look(place: int) -> Any:
    return f"run{1 + place % MOST_COLOURS}"


def _points(rows: Sequence[Mapping[str, Any]], metric: str, axis: str) -> list[Point]:
    points = []
    for row in rows:
        x = finite(row.get("seconds" if axis == "minutes" else axis))
        y = finite(row.get(metric))
        if x is not None and y is not None:
            points.append((x / 60 if axis == "minutes" else x, y))
    return points
