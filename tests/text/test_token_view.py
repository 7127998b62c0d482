"""The view of tokens: the same figures as data, in a terminal and as HTML, and nothing of a text that steers either."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from duihua.cli.main import main
from duihua.report.token_page import token_fragment, token_page
from duihua.text.characters import CharacterVocabulary
from duihua.text.token_view import show, token_costs, token_view, visible
from duihua.text.tokenizer import Tokenizer
from duihua.text.words import WordVocabulary

TEXTS = ["the dog minds 饕", "你好"]


@pytest.fixture
def view(tokenizer: Tokenizer) -> dict[str, Any]:
    words = WordVocabulary.train(["the dog 你好"], 0, "marks")
    return token_view(TEXTS, {"bytes": tokenizer, "mine": words, "characters": CharacterVocabulary.train(TEXTS)})


def test_a_view_counts_what_it_shows(view: dict[str, Any], tokenizer: Tokenizer) -> None:
    assert json.loads(json.dumps(view)) == view
    assert [each["kind"] for each in view["vocabularies"]] == ["bytes", "words", "characters"]
    first = view["texts"][0]
    assert (first["characters"], first["bytes"]) == (15, 17)
    bytes_, words, characters = first["rows"]
    assert [span["id"] for span in bytes_["spans"]] == tokenizer.encode(TEXTS[0])
    assert bytes_["unknown"] == 0
    assert sum(not span["whole"] for span in bytes_["spans"]) >= 2
    assert [(span["text"], span["known"]) for span in words["spans"]] == [
        ("the", True), ("dog", True), ("minds", False), ("饕", False)
    ]  # fmt: skip
    assert (words["tokens"], words["unknown"], words["characters_per_token"]) == (4, 2, 15 / 4)
    assert (characters["tokens"], characters["unknown"]) == (15, 0)


def test_costs_are_summed_over_texts() -> None:
    words = WordVocabulary(["a"], "spaces")
    assert token_costs(["a b", "a"], words) == {"characters_per_token": 4 / 3, "unknown_share": 1 / 3}
    assert token_costs([], words) == {"characters_per_token": None, "unknown_share": None}


def test_the_terminal_shows_tokens_ids_and_unknowns(view: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    show(view)
    shown = capsys.readouterr().out
    assert "|the|dog|<unk:minds>|<unk:饕>|" in shown
    assert "words, mine (5 ids): 4 tokens, 2 unknown, 3.75 characters a token" in shown
    assert re.search(r"<E9>|<E9 A5>", shown)
    assert "no entry" in shown
    assert "part of a character" in shown


def test_control_characters_cannot_steer_a_terminal_or_a_page(
    tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = "a\x1b[31m\u202eb</span><script>alert(1)</script>\n"
    view = token_view([hostile], {"bytes": tokenizer, "characters": CharacterVocabulary.train(["a"])})
    show(view)
    assert "\x1b" not in capsys.readouterr().out
    page = token_page(view)
    assert "<script>alert" not in page
    assert "\u202e" not in page
    assert page.count("<script>") == 1  # our own
    assert visible("\n\t") == "⏎⇥"


def test_the_page_holds_both_languages_and_loads_nothing(view: dict[str, Any]) -> None:
    page = token_page(view)
    assert "词元" in page
    assert "Byte-level BPE" in page
    assert "字节级 BPE" in page
    assert not re.search(r"(src|href)=|url\(", page)
    fragment = str(token_fragment(view))
    assert fragment.count('class="unknown"') == 2
    assert fragment.count('class="part"') == sum(
        not span["whole"] for one in view["texts"] for row in one["rows"] for span in row["spans"]
    )


def test_the_command_shows_learnt_and_stored_vocabularies(
    tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer.save(tmp_path / "mine")
    (tmp_path / "text.txt").write_text("the quick dog. 今天天气很好", encoding="utf-8")
    command = ["tokens", "the slow dog", "--tokenizer", str(tmp_path / "mine"), "--json"]
    command += ["--words", str(tmp_path / "text.txt"), "--characters", str(tmp_path / "text.txt")]
    assert main([*command, "--html", str(tmp_path / "page.html")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["kind"] for each in found["vocabularies"]] == ["bytes", "characters", "words", "words-jieba"]
    assert [row["unknown"] for row in found["texts"][0]["rows"]] == [0, 3, 1, 1]  # s, l and w; slow; slow
    assert "slow" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert main(["tokens"]) == 0  # learnt from the package's sample
    shown = capsys.readouterr().out
    assert "byte-level BPE (600 ids)" in shown
    assert "words by jieba" in shown


def test_standard_input_gives_a_text_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import io
    import sys
    from types import SimpleNamespace

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO("one\n\n二\n".encode())))
    assert main(["tokens", "-", "--json"]) == 0
    assert [one["text"] for one in json.loads(capsys.readouterr().out)["texts"]] == ["one", "二"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "--tokenizer", "nowhere"], "no such directory"),
        (["a", "--words", "nowhere.txt"], "no such file"),
        (["a", "--learn", "race-texts"], "Did you mean race-text"),
        ([""], "there is no text"),
    ],
)
def test_what_cannot_be_shown_is_said(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokens", *words]) == 2
    assert message in capsys.readouterr().err
