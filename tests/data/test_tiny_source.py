from __future__ import annotations

import hashlib
import runpy
from pathlib import Path

import pytest

from duihua.data.records import Conversation, Preference, record_text
from duihua.data.source import SourceConfig, open_source
from duihua.data.tiny_source import FOLDER, TinyChat, TinyPreferences, TinySource, TinyText

TOOL = Path(__file__).parents[2] / "tools" / "make_tiny_data.py"
CLASSES = [TinyText, TinyChat, TinyPreferences]


@pytest.mark.parametrize("source_class", CLASSES, ids=lambda found: found.name)
def test_the_sample_opens_without_data_and_holds_both_languages_in_both_splits(
    source_class: type[TinySource], tmp_path: Path
) -> None:
    source = open_source(SourceConfig(name=source_class.name), tmp_path / "nothing")
    assert source.kind == source_class.kind
    assert source.terms.licence == "CC0-1.0"
    train, held_out = list(source.records("train")), list(source.records("heldout"))
    assert (len(train), len(held_out)) == tuple(source_class.counts)
    for records in (train, held_out):
        languages = [record.language for record in records]
        assert min(languages.count("en"), languages.count("zh")) >= 9
    assert source.left_out.total == 0


def test_conversations_and_preferences_have_the_right_form() -> None:
    for record in TinyChat(Path()).records("train"):
        assert isinstance(record, Conversation)
        assert [message["role"] for message in record.messages] == ["user", "assistant"] * (len(record.messages) // 2)
        assert all(message["content"] for message in record.messages)
    for pair in TinyPreferences(Path()).records("train"):
        assert isinstance(pair, Preference)
        assert pair.chosen != pair.rejected
        assert pair.prompt[-1]["role"] == "user"


def test_no_prompt_is_in_both_splits() -> None:
    chat = TinyChat(Path())
    train = {record_text(record).split("\n")[0] for record in chat.records("train")}
    assert not train & {record_text(record).split("\n")[0] for record in chat.records("heldout")}


def test_the_sample_is_small_and_is_what_the_tool_writes(tmp_path: Path) -> None:
    tool = runpy.run_path(str(TOOL))
    tool["main"].__globals__["FOLDER"] = tmp_path
    tool["main"]()
    for written in tmp_path.iterdir():
        assert _hash(written) == _hash(FOLDER / written.name)
    assert len(list(tmp_path.iterdir())) == 3
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 80_000


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
