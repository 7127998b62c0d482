"""Votes and corrections of the chat page become preferences, read from a store that the server itself has written."""

from __future__ import annotations

from pathlib import Path

import pytest

from duihua.data.records import Preference
from duihua.data.source import SourceConfig, open_source
from duihua.data.votes import CORRECTION, VOTE, Votes
from duihua.errors import DataError
from duihua.serving.conversations import ConversationStore, NotFoundError


class Page:
    """What a reader does on the page."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "history.sqlite3"
        self.store = ConversationStore(f"sqlite:///{self.file}")

    def ask(self, text: str, *replies: tuple[str, int, str], system: str = "") -> str:
        """A conversation with several versions of the reply to one message: (text, vote, correction) of each."""
        conversation = self.store.create(system=system).id
        question = self.store.add(conversation, parent_id=None, role="user", content=text).id
        for content, vote, correction in replies:
            reply = self.store.add(conversation, parent_id=question, role="assistant", content=content)
            self.store.judge(conversation, reply.id, vote=vote, correction=correction)
        return conversation

    def pairs(self) -> list[Preference]:
        source = open_source(SourceConfig(path=str(self.file), kind="preferences"), self.file.parent)
        assert isinstance(source, Votes)
        return [one for split in ("train", "heldout") for one in source.records(split) if isinstance(one, Preference)]  # type: ignore[arg-type]


@pytest.fixture
def page(tmp_path: Path) -> Page:
    return Page(tmp_path)


def test_versions_of_one_turn_are_set_against_each_other(page: Page) -> None:
    page.ask("hi", ("good", 1, ""), ("bad", -1, ""), ("unjudged", 0, ""), ("fine", 1, ""), system="Be brief.")
    found = page.pairs()
    assert {(one.chosen, one.rejected, one.kind) for one in found} == {("good", "bad", VOTE), ("fine", "bad", VOTE)}
    assert found[0].prompt == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]


def test_a_correction_beats_what_it_corrects_and_the_path_is_the_prompt(page: Page) -> None:
    conversation = page.ask("hi", ("yes", 0, ""))
    first = page.store.messages(conversation)[-1]
    asked = page.store.add(conversation, parent_id=first.id, role="user", content="二加二？")
    wrong = page.store.add(conversation, parent_id=asked.id, role="assistant", content="五")
    page.store.judge(conversation, wrong.id, vote=-1, correction=" 四 ")
    (found,) = page.pairs()
    assert (found.chosen, found.rejected, found.kind, found.language) == ("四", "五", CORRECTION, "zh")
    assert [message["content"] for message in found.prompt] == ["hi", "yes", "二加二？"]


def test_votes_in_one_direction_alone_prefer_nothing_and_say_so(page: Page) -> None:
    page.ask("hi", ("good", 1, ""), ("fine", 1, ""))
    with pytest.raises(DataError, match="all 2 votes are up"):
        page.pairs()
    page.ask("ho", ("bad", -1, ""))
    with pytest.raises(DataError, match="3 votes, but no turn"):
        page.pairs()
    page.ask("hm", ("good", 1, ""), ("bad", -1, ""))
    source = Votes(SourceConfig(path=str(page.file), kind="preferences"))
    assert sum(1 for split in ("train", "heldout") for _ in source.records(split)) == 1  # type: ignore[arg-type]
    assert source.left_out.counts["vote without its opposite at the same turn"] == 3


def test_a_vote_can_be_taken_back_and_says_nothing_of_questions(page: Page) -> None:
    conversation = page.ask("hi", ("good", 1, ""), ("bad", -1, ""))
    messages = page.store.messages(conversation)
    before = open_source(SourceConfig(path=str(page.file), kind="preferences"), page.file.parent).fingerprint()
    page.store.judge(conversation, messages[-1].id, vote=0, correction="better")
    after = open_source(SourceConfig(path=str(page.file), kind="preferences"), page.file.parent).fingerprint()
    assert before != after
    assert [one.kind for one in page.pairs()] == [CORRECTION]
    with pytest.raises(NotFoundError, match="no such reply"):
        page.store.judge(conversation, messages[0].id, vote=1, correction="")
    page.store.judge(conversation, messages[-1].id, vote=0, correction="")
    assert "correction" not in page.store.messages(conversation)[-1].details


def test_other_files_are_refused(tmp_path: Path, page: Page) -> None:
    with pytest.raises(DataError, match="no vote and no correction"):
        page.pairs()
    broken = tmp_path / "x.sqlite3"
    broken.write_text("no database at all, whatever its name says")
    for path, said in ((tmp_path / "none.sqlite3", "no such file"), (broken, "no store of conversations")):
        with pytest.raises(DataError, match=said):
            list(open_source(SourceConfig(path=str(path), kind="preferences"), tmp_path).records("train"))
