"""Which of a verb's two forms is meant, by its words."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from duihua.cli import two_forms
from duihua.cli.two_forms import train_or_ask
from duihua.errors import ConfigError


@pytest.fixture
def meant(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """What was called, with which words."""
    called: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(two_forms.stage, "main", lambda words: called.append(("stage", list(words))) or 0)
    return called


def run(words: Sequence[str], meant: list[tuple[str, list[str]]]) -> int:
    def ask(argv: Sequence[str]) -> int:
        meant.append(("ask", list(argv)))
        return 3

    return train_or_ask(
        "weigh",
        words,
        flags=("--ask", "--find"),
        ask=ask,
        bare="asks for a flag",
        remedy="Add --ask",
        explained="To ask",
    )


@pytest.mark.parametrize(
    ("words", "form", "given"),
    [
        (["model", "--ask", "-"], "ask", ["model", "--ask", "-"]),
        (["--find=x", "model"], "ask", ["--find=x", "model"]),
        (["--ask", "--help"], "ask", ["--help"]),
        (["-h", "--ask"], "ask", ["--help"]),
        (["--output", "model"], "stage", ["weigh", "--output", "model"]),
        (["--asking", "x"], "stage", ["weigh", "--asking", "x"]),  # control: a longer flag is another flag
        ([], "stage", ["weigh"]),
    ],
)
def test_a_flag_of_the_second_form_makes_it(
    words: list[str], form: str, given: list[str], meant: list[tuple[str, list[str]]]
) -> None:
    assert run(words, meant) == (3 if form == "ask" else 0)
    assert meant == [(form, given)]


def test_a_model_without_a_question_is_told_what_to_add(meant: list[tuple[str, list[str]]]) -> None:
    with pytest.raises(ConfigError, match=r"duihua weigh model: asks for a flag\. Add --ask"):
        run(["model", "--json"], meant)
    assert meant == []


def test_the_help_of_the_stage_names_the_second_form(
    meant: list[tuple[str, list[str]]], capsys: pytest.CaptureFixture[str]
) -> None:
    run(["--help"], meant)
    assert "To ask" in "".join(capsys.readouterr())
    assert meant == [("stage", ["weigh", "--help"])]
