"""What the two READMEs tell a newcomer to type exists and runs; both tell the same."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import pytest

from duihua.cli.main import VERBS, main

ROOT = Path(__file__).parents[1]
READMES = ("README.md", "README.zh.md")


def blocks(name: str, language: str = "") -> list[str]:
    """The fenced blocks of one language."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return [code for found, code in re.findall(r"```(\w*)\n(.*?)```", text, flags=re.DOTALL) if found == language]


def commands(name: str) -> list[list[str]]:
    """Each `duihua ...` of the README, without what stands around it, as words."""
    lines = [line for block in blocks(name) for line in block.splitlines()]
    found = [re.search(r"(?:^|\| )\.venv/bin/duihua (.*)", line) for line in lines]
    return [shlex.split(match.group(1), comments=True) for match in found if match]


def unknown_flags(words: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Flags of a command that its help does not name."""
    verb = words[:2] if words[0] in ("data", "translate", "evaluate") else words[:1]
    help_words = ["--predict", "--help"] if "--predict" in words else ["--help"]
    capsys.readouterr()
    assert main([*verb, *help_words]) == 0
    shown = set(re.findall(r"--[\w.-]+", capsys.readouterr().out))
    given = [word.partition("=")[0] for word in words if word.startswith("--")]
    return [flag for flag in given if flag not in shown]


@pytest.mark.parametrize("name", READMES)
def test_every_command_and_flag_exists(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = commands(name)
    assert {words[0] for words in found} >= {"run", "chat", "serve", "data", "pretrain", "inspect", "doctor"}
    for words in found:
        assert words[0] in VERBS, words
        assert unknown_flags(words, capsys) == [], words
        for path in (word for word in words if word.startswith("recipes/")):
            assert (ROOT / path).is_file(), path
    assert unknown_flags(["run", "--outptu", "x"], capsys) == ["--outptu"]  # control


@pytest.mark.parametrize("name", READMES)
def test_every_make_target_and_linked_file_exists(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"(?:`|\n)make ([a-z-]+)", text))
    assert {"demo", "demo-train", "test", "help"} <= named <= targets
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (ROOT / link).exists(), link


def test_both_languages_show_the_same_commands_and_code() -> None:
    english, chinese = READMES
    assert commands(english) == commands(chinese)

    def code(name: str) -> list[str]:
        said = re.compile(r"#.*$|\"(?:Hello, how are you\?|你好)\"", re.MULTILINE)
        return [
            "\n".join(line.rstrip() for line in said.sub("", block).splitlines()) for block in blocks(name, "python")
        ]

    assert code(english) == code(chinese)


def test_the_stages_run_from_python_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [shown] = [block for block in blocks("README.md", "python") if "StageContext" in block]
    assert "steps=20" in shown
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DUIHUA_HOME", str(tmp_path / "home"))
    file = tmp_path / "shown.py"
    file.write_text(shown.replace("steps=20", "steps=2, length=32, rows=2"), encoding="utf-8")
    runpy.run_path(str(file))
    assert (tmp_path / "runs" / "mine" / "pretrain" / "model.safetensors").is_file()
