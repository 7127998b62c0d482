"""`duihua watch RUN...`: how a training goes, or several side by side, in the terminal; and its figures to other programs."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from duihua import console
from duihua.cli.arguments import Parser
from duihua.errors import ConfigError

SHOWN = ("loss", "tokens_per_second", "gradient_norm", "learning_rate", "reward", "kl", "heldout_loss", "accuracy")


def main(argv: Sequence[str]) -> int:
    """Show the runs once or until they end or Ctrl-C. Returns 0. Raises DuihuaError."""
    arguments = _parser().parse_args(list(argv))
    if not arguments.every > 0:
        raise ConfigError(f"must be above 0, found {arguments.every}", where="--every")
    folders = [Path(run) for run in arguments.runs]
    with console.json_output(arguments.json):
        if arguments.to:
            return _send(folders, arguments.to, arguments.once, arguments.every)
        if arguments.once or arguments.json:
            views = _views(folders, arguments.stage)
            if arguments.json:
                console.emit_json({"runs": [view.to_mapping() for view in views]})
            else:
                for line in lines_of(views):
                    console.say(line)
            return 0
        return _live(folders, arguments.stage, arguments.every)


def lines_of(views: Sequence[Any]) -> list[str]:
    """The view as plain lines: one run in full, several as a table."""
    if len(views) > 1:
        names = [name for name in SHOWN if any(name in view.figures for view in views)]
        rows = [
            [view.run, view.name, view.state, _place(view), *(view.figures.get(name) for name in names), _left(view)]
            for view in views
        ]
        return console.format_table("", ["run", "stage", "state", "step", *names, "left"], rows).splitlines()
    from duihua.report.watching import sparkline

    (view,) = views
    rate = f", {console.duration(view.seconds)} so far" if view.seconds else ""
    lines = [
        f"{view.run}, {view.name}: {view.state}, step {_place(view)}{rate}{', ' + left if (left := _left(view)) else ''}"
    ]
    if view.losses:
        lines.append(f"loss {view.losses[0]:.4g} -> {view.losses[-1]:.4g}  {sparkline(view.losses)}")
        if view.name == "pretrain":
            lines.append(f"bits a token {view.losses[-1] / math.log(2):.4g}")
    lines += [f"{name.replace('_', ' ')} {view.figures[name]:,.5g}" for name in SHOWN[1:] if name in view.figures]
    if view.sample:
        lines += [f"> {view.sample[0]}", view.sample[1]]
    return lines


def _place(view: Any) -> str:
    return f"{view.step:,}" if view.steps is None else f"{view.step:,} of {view.steps:,}"


def _left(view: Any) -> str:
    return "" if view.seconds_left is None else f"{console.duration(view.seconds_left)} left"


def _views(folders: Sequence[Path], stage: str) -> list[Any]:
    from duihua.report.watching import view_stage, watched_stages

    views = []
    for folder in folders:
        found = watched_stages(folder)
        chosen = [path for path in found if path.name == stage] if stage else found[-1:]
        if not chosen:
            raise ConfigError(
                f"{folder} has no figures of {stage!r}",
                where="--stage",
                remedy=f"It has {', '.join(sorted(path.name for path in found))}",
            )
        views.append(view_stage(chosen[0], folder.resolve().name))
    return views


def _live(folders: Sequence[Path], stage: str, every: float) -> int:
    """Redraw until every run has ended; plain lines where nobody looks."""
    import sys

    if not sys.stdout.isatty():
        for line in lines_of(_views(folders, stage)):
            console.say(line)
        return 0
    from rich.live import Live
    from rich.text import Text

    with Live(Text(""), screen=False, auto_refresh=False) as live:
        while True:
            views = _views(folders, stage)
            live.update(Text("\n".join(lines_of(views))), refresh=True)
            if all(view.state == "finished" for view in views):
                return 0
            time.sleep(every)


def _send(folders: Sequence[Path], kind: str, once: bool, every: float) -> int:
    """Hand the figures of every stage on, those that are there and, unless once, those that come."""
    from duihua.report.watching import Tail, watched_stages
    from duihua.training.sinks import open_sink

    stages = [path for folder in folders for path in (watched_stages(folder) if once else watched_stages(folder)[-1:])]
    sinks = [open_sink(kind, f"{path.resolve().parent.name}/{path.name}", path / kind) for path in stages]
    tails = [Tail(path / "metrics.jsonl") for path in stages]
    try:
        while True:
            for tail, sink in zip(tails, sinks, strict=True):
                for row in tail.read():
                    figures = {
                        name: float(value)
                        for name, value in row.items()
                        if name != "step" and isinstance(value, int | float) and not isinstance(value, bool)
                    }
                    sink.write(int(row["step"]), figures)
            if once or all((path / "result.json").is_file() for path in stages):
                return 0
            time.sleep(every)
    finally:
        for sink in sinks:
            sink.close()


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="duihua watch",
        description="Show how a training goes: loss, tokens a second, gradient norm, remaining time, latest sample. "
        "Several runs are put side by side. It reads the files that a training writes and asks nothing of it.",
        allow_abbrev=False,
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="a run's folder, or a stage's")
    parser.add_argument("--stage", metavar="NAME", default="", help="which stage of the runs (default: the latest)")
    parser.add_argument("--once", action="store_true", help="print the present state and leave")
    parser.add_argument("--every", metavar="SECONDS", type=float, default=2.0, help="between two looks (default 2)")
    parser.add_argument(
        "--to",
        metavar="SINK",
        default="",
        help="hand the figures on: tensorboard, wandb or trackio (each of its own package)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output and leave")
    return parser
