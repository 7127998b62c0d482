"""`duihua evaluate compare A B`: is the second better than the first by more than chance?"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from duihua import console
from duihua.cli.arguments import Parser
from duihua.cli.evaluate_common import (
    check,
    data_flags,
    documents,
    finish,
    open_models,
    read_pairs,
    result_flags,
    say_left_out,
    shown,
    text_flags,
    window_flags,
)
from duihua.cli.evaluate_tasks import chosen_tasks, put, task_flags
from duihua.cli.evaluate_tasks import settings as task_settings
from duihua.cli.evaluate_text import score, settings
from duihua.errors import ConfigError

if TYPE_CHECKING:
    from duihua.evaluation.significance import Comparison

ABOUT = """\
Two systems on the same items, compared item by item: the difference (second less first), its 95 % interval by the paired
bootstrap, and p by approximate randomisation (two-sided; the bootstrap's p beside it).

texts         A and B are models, with --text or --source: bits per byte and perplexity, a document an item. Fewer is better.
tasks         A and B are models, with --tasks: acc and acc_norm, a question an item. More is better.
translations  A and B are files with one text a line, with --references and --language: BLEU and chrF. More is better.

A p-value says how often chance alone would show such a difference, once. Of twenty comparisons one is below 0.05."""


def main(argv: Sequence[str]) -> int:
    """Run the command; returns 0. Raises DuihuaError."""
    parser = Parser(
        prog="duihua evaluate compare",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[text_flags(), window_flags(), task_flags(), data_flags(), result_flags()],
        allow_abbrev=False,
    )
    parser.add_argument("first", metavar="A", help="a model, or a file of translations")
    parser.add_argument("second", metavar="B", help="another")
    parser.add_argument("--references", metavar="FILE", nargs="+", default=[], help="references of two translations")
    parser.add_argument("--language", metavar="CODE", default="", help="of the translations: zh, en, fr or another")
    arguments = parser.parse_args(list(argv))
    with console.json_output(arguments.json):
        check(arguments)
        ways = [bool(arguments.text or arguments.source), bool(arguments.tasks), bool(arguments.references)]
        if sum(ways) != 1:
            raise ConfigError(
                "nothing says on what they are compared" if not any(ways) else "one kind of comparison at a time",
                where="duihua evaluate compare",
                remedy="Give --text or --source, or --tasks, or --references with --language",
            )
        if arguments.references:
            return of_translations(arguments)
        return of_tasks(arguments) if arguments.tasks else of_texts(arguments)


def of_texts(arguments: argparse.Namespace) -> int:
    """Document by document."""
    material, left_out = documents(arguments)
    models = open_models([arguments.first, arguments.second], arguments)

    from duihua.evaluation.comparison import compare_texts

    first, second = (score(model, material, arguments) for model in models)
    found = compare_texts(first, second, rounds=arguments.rounds, seed=arguments.seed)
    windows = [settings(model, arguments, left_out) for model in models]
    outcome = {
        "kind": "texts",
        **_heading(arguments),
        "windows": [{name: each[name] for name in ("context", "stride")} for each in windows],
        "texts": windows[0]["texts"],
        "documents": len(first),
        **{name: each.to_dict() for name, each in found.items()},
    }
    if windows[0]["context"] != windows[1]["context"]:
        console.warn("The two models see windows of different lengths; --context N gives both the same.")

    def show() -> None:
        say_comparisons(arguments, list(found.items()), f"{len(first):,} documents")
        say_left_out(left_out)

    return finish(arguments, outcome, show)


def of_tasks(arguments: argparse.Namespace) -> int:
    """Question by question."""
    chosen = chosen_tasks(arguments)
    models = open_models([arguments.first, arguments.second], arguments)

    from duihua.evaluation.comparison import compare_tasks

    found = {}
    for task, items in chosen:
        first, second = (put(model, task, items, arguments) for model in models)
        found[task.name] = compare_tasks(first, second, task.normalised, rounds=arguments.rounds, seed=arguments.seed)
    outcome = {
        "kind": "tasks",
        **_heading(arguments),
        "settings": [task_settings(arguments, model) for model in models],
        "tasks": {task: {name: each.to_dict() for name, each in both.items()} for task, both in found.items()},
    }
    rows = [(f"{task} {name}", each) for task, both in found.items() for name, each in both.items()]
    return finish(arguments, outcome, lambda: say_comparisons(arguments, rows, "tasks"))


def of_translations(arguments: argparse.Namespace) -> int:
    """Line by line."""
    if not arguments.language:
        raise ConfigError("is needed, because it chooses the tokenizer", where="--language", remedy="Add --language en")
    first, references = read_pairs(arguments.first, arguments.references)
    second, _ = read_pairs(arguments.second, arguments.references)

    from duihua.evaluation.comparison import compare_translations

    found, signatures = compare_translations(
        first, second, references, arguments.language, rounds=arguments.rounds, seed=arguments.seed
    )
    outcome: dict[str, Any] = {"kind": "translations", **_heading(arguments), "lines": len(first)}
    for name, each in found.items():
        outcome |= {name: each.to_dict(), f"{name}_signature": signatures[name]}

    def show() -> None:
        say_comparisons(arguments, list(found.items()), f"{len(first):,} lines")
        for name, signature in signatures.items():
            console.say(f"{name}: {signature}")

    return finish(arguments, outcome, show)


def _heading(arguments: argparse.Namespace) -> dict[str, str]:
    return {"first": arguments.first, "second": arguments.second}


def say_comparisons(arguments: argparse.Namespace, rows: Sequence[tuple[str, Comparison]], of: str) -> None:
    """A table for people."""
    console.table(
        f"A: {arguments.first}   B: {arguments.second}   {of}, {arguments.rounds:,} rounds",
        ["score", "A", "B", "B - A [95 %]", "p", "p (bootstrap)"],
        [
            [
                name,
                f"{each.first:,.4f}",
                f"{each.second:,.4f}",
                shown(each.difference, digits=4),
                f"{each.p_value:.4f}",
                f"{each.bootstrap_p_value:.4f}",
            ]
            for name, each in rows
        ],
    )
