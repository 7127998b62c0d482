"""The dashboard of `duihua watch` in a terminal: one training in full, several as a table, in the language of the locale."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from duihua import console
from duihua.cli.chat_texts import Language, language_of_locale
from duihua.cli.watch import SHOWN, figure, loss
from duihua.report.texts import TEXTS
from duihua.report.watching import StageView, by_source, sparkline

COMPARED = (
    "loss", "bits_per_byte", "heldout_bits_per_byte", "reward", "tokens_per_second", "utilisation", "gradient_norm",
)  # fmt: skip
STYLES = {"running": "bold cyan", "finished": "bold green", "still": "bold yellow"}
FINDING_STYLES = {"problem": "bold red", "note": "bold yellow"}


def dashboard(
    views: Sequence[StageView], language: Language | None = None, waiting: Sequence[str] = ()
) -> RenderableType:
    """What is drawn: a panel for one view, a table for several. waiting: runs that have logged nothing yet."""
    language = language or language_of_locale()
    lines: list[RenderableType] = [Text(_text("waiting_here", language, run=run), "dim") for run in waiting]
    if views:
        lines.append(_panel(views[0], language) if len(views) == 1 else _table(views, language))
    return Group(*lines)


def _text(key: str, language: Language, **values: object) -> str:
    return TEXTS[f"watch.{key}"][language == "zh"].format(**values)


def _panel(view: StageView, language: Language) -> Panel:
    facts = Table.grid(padding=(0, 2))
    known = [(_text(name, language), figure(view, name)) for name in SHOWN if name in view.figures]
    for place in range(0, len(known), 2):
        pairs = known[place : place + 2]
        facts.add_row(*(Text(cell, "dim" if at % 2 == 0 else "bold") for at, cell in enumerate(sum(pairs, ()))))
    parts: list[RenderableType] = [_place(view, language)]
    if view.steps:
        bar = Table.grid(expand=True)  # a bar by itself does not end its line
        bar.add_row(ProgressBar(total=view.steps, completed=view.step))
        parts.append(bar)
    if view.losses:
        course = f"{view.losses[0]:.4g} → {view.losses[-1]:.4g}  "
        parts.append(Text.assemble((f"{_text('loss', language)}  ", "dim"), course, (sparkline(view.losses), "cyan")))
    parts.append(facts)
    if sources := by_source(view.figures):
        losses = Table.grid(padding=(0, 2))
        losses.add_row(*(Text(_text(name, language), "dim") for name in ("by_source", "trained_on", "held_out")))
        for source, pair in sources.items():
            losses.add_row(Text(source), *(Text(loss(value), "bold") for value in pair))
        parts.append(losses)
    if view.findings:
        parts.append(_findings(view, language))
    if view.sample:  # Text and not markup: what a model wrote must not colour the terminal
        parts += [Text(_text("sample", language), "dim"), Text(f"> {view.sample[0]}", "bold"), Text(view.sample[1])]
    return Panel(Group(*parts), title=Text(f"{view.run} · {_stage(view, language)}"), title_align="left")


def _findings(view: StageView, language: Language) -> Table:
    """What the doctor finds not as it should be: how bad, what was found, and below it what that means and what to change."""
    found = Table.grid(padding=(0, 2))
    for finding in view.findings:
        said = ". ".join(part for part in (finding.meaning, finding.remedy) if part)
        text = Text.assemble((finding.check, "bold"), f"  {finding.found}", (f"\n{said}." if said else "", "dim"))
        found.add_row(Text(_text(finding.state, language), FINDING_STYLES[finding.state]), text)
    return found


def _place(view: StageView, language: Language) -> Text:
    step = _text("step", language, step=f"{view.step:,}", steps=f"{view.steps:,}") if view.steps else ""
    words = [step or _text("step_alone", language, step=f"{view.step:,}")]
    if view.seconds:
        words.append(_text("so_far", language, time=console.duration(view.seconds)))
    if view.seconds_left is not None:
        words.append(_text("left", language, left=console.duration(view.seconds_left)))
    return Text.assemble((_text(view.state, language), STYLES[view.state]), "  ", " · ".join(words))


def _table(views: Sequence[StageView], language: Language) -> Table:
    names = [name for name in COMPARED if any(name in view.figures for view in views)]
    table = Table(title=Text(_text("compared", language)), title_justify="left")
    for name in ("run", "stage", "state"):
        table.add_column(_text(name, language))
    for name in ("place", "remaining", *names):
        table.add_column(_text(name, language), justify="right")
    for view in views:
        left = "" if view.seconds_left is None else console.duration(view.seconds_left)
        place = f"{view.step:,}" + (f" / {view.steps:,}" if view.steps else "")
        found = [figure(view, name) if name in view.figures else "" for name in names]
        state = Text(_text(view.state, language), STYLES[view.state])
        table.add_row(Text(view.run), Text(_stage(view, language)), state, place, left, *found)
    return table


def _stage(view: StageView, language: Language) -> str:
    key = f"stage.{view.stage}"
    name = TEXTS[key][language == "zh"] if key in TEXTS else view.stage
    return name if view.name == view.stage else f"{name} ({view.name})"
