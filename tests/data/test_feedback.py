"""What was said on the page, counted; and cut into parts of which none knows another."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from duihua.data.feedback import (
    PARTS,
    Feedback,
    pairs_file,
    part_of,
    prompts_file,
    read_feedback,
    read_pairs,
    require_enough,
    short_of,
    write_parts,
    written_parts,
)
from duihua.data.source import SourceConfig, open_source
from duihua.errors import DataError
from duihua.serving.conversations import ConversationStore


class Page:
    """What a reader does on the page."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "history.sqlite3"
        self.store = ConversationStore(f"sqlite:///{self.file}")

    def ask(self, question: str, *replies: tuple[str, int, str]) -> str:
        conversation = self.store.create().id
        parent = self.store.add(conversation, parent_id=None, role="user", content=question).id
        for content, vote, correction in replies:
            reply = self.store.add(conversation, parent_id=parent, role="assistant", content=content)
            if vote or correction:
                self.store.judge(conversation, reply.id, vote=vote, correction=correction)
        return conversation


@pytest.fixture
def page(tmp_path: Path) -> Page:
    page = Page(tmp_path)
    for number in range(60):
        page.ask(f"question {number}", ("good", 1, ""), ("bad", -1, ""))
    return page


def test_what_was_said_is_counted_by_conversation_and_language(tmp_path: Path) -> None:
    page = Page(tmp_path)
    page.ask("hello", ("good", 1, ""), ("bad", -1, ""), ("silent", 0, ""))
    page.ask("你好，最近怎么样", ("五", 0, "四"))
    page.ask("lonely", ("up alone", 1, ""))
    page.ask("unjudged", ("nothing was said of it", 0, ""))
    counts = read_feedback(page.file).counts()
    assert (counts["votes"], counts["corrections"], counts["pairs"]) == ({"up": 2, "down": 1}, 1, 2)
    assert counts["pairs_by_language"] == {"en": 1, "zh": 1}
    rows = {one["title"]: (one["up"], one["down"], one["corrections"], one["pairs"]) for one in counts["conversations"]}
    assert not any(isinstance(number, bool) for row in rows.values() for number in row)
    assert rows == {"hello": (1, 1, 0, 1), "你好，最近怎么样": (0, 0, 1, 1), "lonely": (1, 0, 0, 0)}
    assert counts["left_out"]["reasons"]["vote without its opposite at the same turn"]["count"] == 1


def test_no_prompt_stands_in_two_parts_and_new_votes_move_none(page: Page) -> None:
    before = read_feedback(page.file)
    places = {pair.prompt[-1]["content"]: part for part in PARTS for pair in before.pairs[part]}
    assert len(places) == 60
    assert all(len(before.pairs[part]) >= 5 for part in PARTS)
    asked = {one.messages[0]["content"] for one in before.prompts["heldout"]}
    assert asked == {question for question, part in places.items() if part == "heldout"}
    for number in range(60, 90):
        page.ask(f"question {number}", ("good", 1, ""), ("bad", -1, ""))
    after = read_feedback(page.file)
    assert {**places} == {
        pair.prompt[-1]["content"]: part
        for part in PARTS
        for pair in after.pairs[part]
        if pair.prompt[-1]["content"] in places
    }
    assert after.fingerprint != before.fingerprint


def test_with_a_judge_at_hand_everything_that_is_not_held_out_is_learnt_from(page: Page) -> None:
    found = read_feedback(page.file, judge=False)
    assert found.pairs["judge"] == []
    assert len(found.pairs["heldout"]) == len(read_feedback(page.file).pairs["heldout"])
    assert {part_of(pair) for pair in found.pairs["learn"]} == {"learn", "judge"}


def test_the_parts_are_read_back_as_they_were_written(page: Page, tmp_path: Path) -> None:
    found = read_feedback(page.file)
    assert written_parts(tmp_path / "data") is None
    write_parts(found, tmp_path / "data")
    record = written_parts(tmp_path / "data")
    assert record is not None and record["fingerprint"] == found.fingerprint
    learn, held = (str(pairs_file(tmp_path / "data", part)) for part in ("learn", "heldout"))  # type: ignore[arg-type]
    source = open_source(SourceConfig(path=learn, heldout=held, kind="preferences"), tmp_path)
    for split, part in (("train", "learn"), ("heldout", "heldout")):
        read = [(one.prompt, one.chosen, one.rejected) for one in source.records(split)]  # type: ignore[arg-type, union-attr]
        assert read == [(one.prompt, one.chosen, one.rejected) for one in found.pairs[part]]  # type: ignore[index]
    read = [(one.prompt, one.chosen, one.rejected, one.language) for one in read_pairs(tmp_path / "data", "heldout")]
    assert read == [(one.prompt, one.chosen, one.rejected, one.language) for one in found.pairs["heldout"]]
    rows = [json.loads(line) for line in prompts_file(tmp_path / "data", "heldout").read_text().splitlines()]
    assert [row["messages"][-1]["content"] for row in rows] == ["good"] * len(rows), "the reply that was voted up"


def test_too_few_are_counted_against_what_is_needed(page: Page) -> None:
    found = read_feedback(page.file)
    require_enough(found, learn=5, judge=5, heldout=5)
    assert short_of(found, learn=5, judge=5, heldout=5) == [] and len(short_of(found, learn=99, judge=99)) == 2
    with pytest.raises(DataError, match=r"too few pairs, 60 in all: \d+ pairs to learn from, 50 are needed"):
        require_enough(found, learn=50, judge=5, heldout=5)
    with pytest.raises(DataError, match="held-out prompts to compare on, 61 are needed"):
        require_enough(found, learn=5, judge=5, heldout=61)


def test_votes_of_a_deleted_conversation_are_gone_or_said(tmp_path: Path) -> None:
    page = Page(tmp_path)
    gone = page.ask("to be deleted", ("good", 1, ""), ("bad", -1, ""))
    page.ask("stays", ("good", 1, ""), ("bad", -1, ""))
    page.store.delete(gone)
    assert read_feedback(page.file).counts()["pairs"] == 1
    orphaned = Page(tmp_path / "other")
    lost = orphaned.ask("orphaned", ("good", 1, ""), ("bad", -1, ""))
    orphaned.store.close()
    with sqlite3.connect(orphaned.file) as connection:  # as another program would, which knows nothing of foreign keys
        connection.execute("DELETE FROM conversations WHERE id = ?", (lost,))
    with pytest.raises(DataError, match="all 2 replies that were judged stand in conversations that were deleted"):
        read_feedback(orphaned.file)


def test_the_prompt_with_its_best_reply_is_kept_once(tmp_path: Path) -> None:
    page = Page(tmp_path)
    page.ask("a", ("down", -1, ""), ("plain", 0, ""), ("up", 1, ""))
    page.ask("b", ("down", -1, "right"), ("up", 1, ""))
    page.ask("A!", ("again", 0, ""))
    found: Feedback = read_feedback(page.file)
    kept = {one.messages[0]["content"]: one.messages[-1]["content"] for part in PARTS for one in found.prompts[part]}
    assert kept in ({"a": "up", "b": "right"}, {"A!": "again", "b": "right"})
