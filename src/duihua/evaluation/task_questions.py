"""How the rows of each known task become questions to a language model, which is asked nothing.

It is shown the question and told each answer, and the answer that it finds likeliest is taken for its choice. How question
and answer are written changes the score by points, so the wording is that of EleutherAI's lm-evaluation-harness 0.4
(zero-shot), whose figures are the ones that papers print. One space stands between the two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from duihua.config.mapping import suggestion
from duihua.data.tasks.olmo_eval import TaskArchive
from duihua.errors import ConfigError
from duihua.evaluation.likelihood import Request

LETTERS = "ABCD"
MMLU = "hails/mmlu_no_train"


@dataclass(frozen=True)
class TaskItem:
    """One question: (context, continuation) for each answer, and which is right. part: the subject, where there are some.

    A question with a single answer (LAMBADA) is right when that answer is what the model would have written.
    """

    requests: tuple[Request, ...]
    answer: int
    part: str = ""

    def lengths(self) -> tuple[list[int], list[int]]:
        """Characters and UTF-8 bytes of each answer, without the space before it."""
        answers = [continuation.removeprefix(" ") for _, continuation in self.requests]
        return [len(answer) for answer in answers], [len(answer.encode("utf-8")) for answer in answers]


Items = Callable[[TaskArchive, int], Iterator[TaskItem]]
"""(archive, shots) -> the questions in the archive's order."""


def question(context: str, answers: list[str], answer: int) -> TaskItem:
    """The same context before every answer."""
    return TaskItem(tuple((context, f" {each}") for each in answers), answer)


# -- one function a task: rows of the archive -> questions ---------------------------------------------------------------


def hellaswag(archive: TaskArchive, shots: int) -> Iterator[TaskItem]:
    for row in archive.table("hellaswag/none/validation"):
        scene = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
        yield question(_mended(scene), [_mended(ending) for ending in row["endings"]], int(row["label"]))


def _mended(text: str) -> str:
    """Without the traces of WikiHow's layout that HellaSwag's texts carry."""
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def piqa(archive: TaskArchive, shots: int) -> Iterator[TaskItem]:
    for row in archive.table("piqa/plain_text/validation"):
        yield question(f"Question: {row['goal']}\nAnswer:", [row["sol1"], row["sol2"]], row["label"])


def arc(folder: str) -> Items:
    def items(archive: TaskArchive, shots: int) -> Iterator[TaskItem]:
        for row in archive.requests(f"{folder}/test_rc_5shot"):
            yield question(row["query"], row["choices"], row["gold"])

    return items


def winogrande(archive: TaskArchive, shots: int) -> Iterator[TaskItem]:
    """The rest of the sentence is scored after either name (Trinh and Le 2018), so the names' own likelihood is left out."""
    for row in archive.table("winogrande/winogrande_xl/validation"):
        before, _, after = row["sentence"].partition("_")
        contexts = [before + row["option1"], before + row["option2"]]
        yield TaskItem(tuple((context, f" {after.strip()}") for context in contexts), int(row["answer"]) - 1)


def openbookqa(archive: TaskArchive, shots: int) -> Iterator[TaskItem]:
    for row in archive.requests("openbookqa/test_rc_5shot"):
        stem = row["query"].removeprefix("Question: ").removesuffix("\nAnswer:")
        yield question(stem, row["choices"], row["gold"])


def sciq(archive: TaskArchive, shots: int) -> Iterator[TaskItem]:
    for row in archive.table("sciq/none/validation"):
        answers = [row["distractor1"], row["distractor2"], row["distractor3"], row["correct_answer"]]
        yield question(f"{row['support'].lstrip()}\nQuestion: {row['question']}\nAnswer:", answers, 3)


def boolq(archive: TaskArchive, shots: int) -> Iterator[TaskItem]:
    for row in archive.table("boolq/none/validation"):
        yield question(f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:", ["no", "yes"], int(row["answer"]))


def lambada(archive: TaskArchive, shots: int) -> Iterator[TaskItem]:
    for row in archive.requests("lambada/bpb_0shot"):
        yield question(row["query"], row["choices"], 0)


def mmlu(subject: str) -> Items:
    """All subjects for "", else one. Examples are those of the subject's dev part, with their answers."""

    def items(archive: TaskArchive, shots: int) -> Iterator[TaskItem]:
        known = archive.folders(MMLU)
        if subject and subject not in known:
            raise ConfigError("no such subject", where=f"--tasks mmlu_{subject}", remedy=suggestion(subject, known))
        for name in [subject] if subject else known:
            start = f"The following are multiple choice questions (with answers) about {name.replace('_', ' ')}.\n\n"
            for row in archive.table(f"{MMLU}/{name}/dev")[:shots] if shots else []:
                start += f"{_letters(row)} {LETTERS[row['answer']]}\n\n"
            for row in archive.table(f"{MMLU}/{name}/test"):
                asked = start + _letters(row)
                yield TaskItem(tuple((asked, f" {letter}") for letter in LETTERS), row["answer"], name)

    return items


def _letters(row: dict[str, Any]) -> str:
    answers = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, row["choices"], strict=True))
    return f"{row['question'].strip()}\n{answers}\nAnswer:"
