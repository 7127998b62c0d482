"""`duihua run RECIPE`: every stage of a recipe, resumed where it was left, with a report at the end."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from duihua import console
from duihua.cli.arguments import Parser


def main(argv: Sequence[str]) -> int:
    """Run a recipe. Returns 0. Raises DuihuaError, and KeyboardInterrupt when it was stopped."""
    arguments = _parser().parse_args(list(argv))
    with console.json_output(arguments.json):
        from duihua.data.home import data_directory
        from duihua.report.recipe import load_recipe

        settings = list(arguments.set)
        if arguments.seed is not None:
            settings.append(f"seed={arguments.seed}")
        if arguments.threads is not None:
            settings.append(f"threads={arguments.threads}")
        recipe = load_recipe(Path(arguments.recipe), settings)
        directory = Path(arguments.output) if arguments.output else Path("runs") / recipe.name

        from duihua.report.runner import run_recipe

        outcome = run_recipe(
            recipe,
            directory,
            data_directory(arguments.data),
            device=arguments.device,
            until=arguments.until,
            command=["duihua", "run", *argv],
            accept_changed_data=arguments.accept_changed_data,
        )
        if arguments.json:
            console.emit_json(
                {
                    "run": str(outcome.directory),
                    "stages": outcome.stages,
                    "complete": outcome.complete,
                    "summary": outcome.summary,
                }
            )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="duihua run",
        description="Run the stages of a recipe in order, then write summary.json and report.html. Finished stages are "
        "skipped, an interrupted one goes on, one whose settings or data have changed runs again in a new folder.",
        allow_abbrev=False,
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file, such as recipes/quickstart.yaml")
    parser.add_argument("--output", metavar="DIR", default="", help="the run's folder (default runs/NAME)")
    parser.add_argument(
        "--set",
        metavar="STAGE.FIELD=VALUE",
        action="append",
        default=[],
        help="put a setting over the recipe's, as pretrain.steps=100; may be given several times",
    )
    parser.add_argument("--until", metavar="STAGE", default=None, help="stop after this stage")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default cpu)")
    parser.add_argument("--seed", metavar="N", default=None, help="over the recipe's seed")
    parser.add_argument("--threads", metavar="N", default=None, help="over the recipe's number of CPU threads")
    parser.add_argument(
        "--data", metavar="DIR", default="", help="data directory (default $DUIHUA_HOME or ~/.cache/duihua)"
    )
    parser.add_argument(
        "--accept-changed-data",
        action="store_true",
        help="a file of data has changed under a training: go on from its checkpoint with the new content, and keep the stages "
        "that are finished",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    return parser
