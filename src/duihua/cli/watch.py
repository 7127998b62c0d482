"""`duihua watch RUN...`: how a training goes, or several side by side, in the terminal or as a page; and its figures to other
programs."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from duihua import console
from duihua.cli.arguments import Parser
from duihua.errors import ConfigError, DataError

SHOWN = (
    "loss", "bits_per_byte", "tokens_per_second", "utilisation", "gradient_norm", "learning_rate", "reward", "kl",
    "heldout_loss", "heldout_bits_per_byte", "accuracy", "skipped_steps",
)  # fmt: skip
PLAIN = {"bits_per_byte": "bits per byte of the training text"}
"""What a figure is called in plain lines, where its name alone does not say it."""
PORT = 8010


def main(argv: Sequence[str]) -> int:
    """Show the runs once or until they end or Ctrl-C. Returns 0. Raises DuihuaError."""
    arguments = _parser().parse_args(list(argv))
    if not arguments.every > 0:
        raise ConfigError(
            f"must be above 0, found {arguments.every}", where="--every", remedy="Set a larger number, or leave it out"
        )
    folders = [Path(run) for run in arguments.runs]
    with console.json_output(arguments.json):
        if arguments.to:
            return _send(folders, arguments.to, arguments.once, arguments.every)
        if arguments.page or arguments.port is not None:
            return _page(folders, arguments)
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
    from duihua.report.watching import by_source, sparkline

    (view,) = views
    rate = f", {console.duration(view.seconds)} so far" if view.seconds else ""
    lines = [
        f"{view.run}, {view.name}: {view.state}, step {_place(view)}{rate}{', ' + left if (left := _left(view)) else ''}"
    ]
    if view.losses:
        lines.append(f"loss {view.losses[0]:.4g} -> {view.losses[-1]:.4g}  {sparkline(view.losses)}")
    lines += [
        f"{PLAIN.get(name, name.replace('_', ' '))} {figure(view, name)}" for name in SHOWN[1:] if name in view.figures
    ]
    lines += [
        f"{source}: loss {loss(train)} on training conversations, {loss(heldout)} held out"
        for source, (train, heldout) in by_source(view.figures).items()
    ]
    lines += [f"{finding.state}: {finding.check}: {finding.found}" for finding in view.findings]
    if view.sample:
        lines += [f"> {console.harmless(view.sample[0])}", console.harmless(view.sample[1])]
    return lines


def figure(view: Any, name: str) -> str:
    """A figure as text; the utilisation in per cent."""
    return f"{view.figures[name]:.0%}" if name == "utilisation" else f"{view.figures[name]:,.5g}"


def loss(value: float | None) -> str:
    """A loss as text; a dash where there is none."""
    return "–" if value is None else f"{value:.4g}"


def _place(view: Any) -> str:
    return f"{view.step:,}" if view.steps is None else f"{view.step:,} of {view.steps:,}"


def _left(view: Any) -> str:
    return "" if view.seconds_left is None else f"{console.duration(view.seconds_left)} left"


def _views(folders: Sequence[Path], stage: str) -> list[Any]:
    from duihua.report.watching import chosen_stage, view_stage

    return [view_stage(chosen_stage(folder, stage), folder.resolve().name) for folder in folders]


def _live(folders: Sequence[Path], stage: str, every: float) -> int:
    """Redraw until every run has ended; plain lines where nobody looks."""
    import sys

    if not sys.stdout.isatty():
        for line in lines_of(_views(folders, stage)):
            console.say(line)
        return 0
    from rich.console import Console
    from rich.live import Live

    from duihua.cli.watch_dashboard import dashboard

    with Live(console=Console(), screen=False, auto_refresh=False) as live:
        while True:
            begun, waiting = _begun(folders)
            views = _views(begun, stage)
            live.update(dashboard(views, waiting=waiting), refresh=True)
            if not waiting and all(view.state == "finished" for view in views):
                return 0
            time.sleep(every)


def _begun(folders: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """(the folders in which something has been logged, the names of those in which nothing has yet). Raises DataError where one
    is no folder, or done without having logged."""
    from duihua.report.watching import require_folder, watched_stages

    begun: list[Path] = []
    waiting: list[str] = []
    for folder in folders:
        require_folder(folder)
        try:
            watched_stages(folder)
            begun.append(folder)
        except DataError:
            if (folder / "result.json").is_file():  # done without a figure, as a tokenizer is
                raise
            waiting.append(folder.resolve().name)
    return begun, waiting


def _page(folders: Sequence[Path], arguments: argparse.Namespace) -> int:
    """Serve the live page until Ctrl-C."""
    import sys

    from duihua.report.watch_page import write_content, write_page
    from duihua.report.watching import require_folder
    from duihua.serving.watch_server import serve_page

    for folder in folders:
        require_folder(folder)

    def ready(address: str) -> None:
        console.say(f"Watching at {address}; Ctrl-C stops it, and touches no training.")
        if arguments.json:
            console.emit_json({"address": address, "runs": [str(folder) for folder in folders]})
            sys.stdout.flush()

    def of(stage: str) -> str:
        return stage or arguments.stage

    serve_page(
        lambda stage, axis: write_page(folders, of(stage), axis, arguments.every),
        lambda stage, axis: write_content(folders, of(stage), axis),
        "127.0.0.1",
        PORT if arguments.port is None else arguments.port,
        ready,
    )
    return 0


def _send(folders: Sequence[Path], kind: str, once: bool, every: float) -> int:
    """Hand the figures of every stage on, those that are there and, unless once, those that come."""
    from duihua.report.watching import Tail, watched_stages
    from duihua.training.sinks import Sink, open_sink

    def hand_on(tail: Tail, sink: Sink) -> None:
        for row in tail.read():
            figures = {
                name: float(value)
                for name, value in row.items()
                if name != "step" and isinstance(value, int | float) and not isinstance(value, bool)
            }
            sink.write(int(row["step"]), figures)

    def opened(path: Path) -> Sink:
        return open_sink(kind, f"{path.resolve().parent.name}/{path.name}", path / kind)

    if once:  # one after the other: trackio has one run at a time
        for path in (path for folder in folders for path in watched_stages(folder)):
            with closing(opened(path)) as sink:
                hand_on(Tail(path / "metrics.jsonl"), sink)
        return 0
    stages = [watched_stages(folder)[-1] for folder in folders]
    if kind == "trackio" and len(stages) > 1:
        raise ConfigError(
            "trackio takes one training at a time",
            where="--to trackio",
            remedy="Watch each run by a command of its own",
        )
    with ExitStack() as stack:
        pairs = [(Tail(path / "metrics.jsonl"), stack.enter_context(closing(opened(path)))) for path in stages]
        while True:
            for tail, sink in pairs:
                hand_on(tail, sink)
            if all((path / "result.json").is_file() for path in stages):
                return 0
            time.sleep(every)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="duihua watch",
        description="Show how a training goes: loss, tokens a second, gradient norm, remaining time, latest sample. "
        "Several runs are put side by side; --page shows them in a browser of this machine. It reads the files that a training "
        "writes and asks nothing of it.",
        allow_abbrev=False,
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="a run's folder, or a stage's")
    parser.add_argument("--stage", metavar="NAME", default="", help="which stage of the runs (default: the latest)")
    parser.add_argument("--once", action="store_true", help="print the present state and leave")
    parser.add_argument("--page", action="store_true", help="show it as a page that draws itself anew, for a browser")
    parser.add_argument(
        "--port", metavar="N", type=int, default=None, help=f"port of that page (default {PORT}; 0 takes a free one)"
    )
    parser.add_argument("--every", metavar="SECONDS", type=float, default=2.0, help="between two looks (default 2)")
    parser.add_argument(
        "--to",
        metavar="SINK",
        default="",
        help="hand the figures on: tensorboard, wandb or trackio (each of its own package)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output and leave")
    return parser
