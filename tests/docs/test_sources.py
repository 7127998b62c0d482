"""Every command, flag, test, picture and link that docs/sources.md names exists, in both languages alike."""

from __future__ import annotations

import io
import re
import shlex
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from duihua.cli.main import VERBS, main
from duihua.report.inside.gallery import PICTURES

ROOT = Path(__file__).parents[2]
DOCS, TESTS = ROOT / "docs", ROOT / "tests"
PAGES = ("sources.md", "sources.zh.md")
NOT_BUILT = ("not yet built", "尚未实现")
ROWS = {"attention": 12, "training": 12, "older models": 10, "for people": 7}
"""What the articles describe, in the order of the page's sections."""
SECOND_WORDS = {"evaluate", "translate", "data"}
"""Verbs whose second word, where it is no flag, has a help of its own."""
FORMS = ("--predict", "--search", "--generate")
"""Flags that make a stage's verb another command, with a help of its own."""


@dataclass(frozen=True)
class Row:
    """One line of a table. built: whether anything of it is there."""

    item: str
    commands: tuple[str, ...]
    tests: tuple[str, ...]
    pictures: tuple[str, ...]
    built: bool


def sections(text: str) -> list[list[Row]]:
    """The rows of each table of a page."""
    found = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        lines = [line.strip().strip("|") for line in section.splitlines() if line.startswith("|")][2:]
        rows = []
        for line in lines:
            item, *rest = (cell.strip() for cell in line.split(" | "))
            assert len(rest) == 3, line
            commands, tests, pictures = (tuple(re.findall(r"`([^`]+)`", cell)) for cell in rest)
            rows.append(Row(item, commands, tests, pictures, built=rest[0] not in NOT_BUILT))
        found.append(rows)
    return found


def rows_of(name: str) -> list[Row]:
    return [row for section in sections((DOCS / name).read_text(encoding="utf-8")) for row in section]


def missing_test(name: str) -> str:
    """Why there is no test of that name, "" where there is."""
    path, _, function = name.partition("::")
    file = TESTS / path
    if not file.is_file():
        return f"no file {path}"
    defined = re.search(rf"^\s*def {re.escape(function)}\(", file.read_text(encoding="utf-8"), re.MULTILINE)
    return "" if function.startswith("test_") and defined else f"no test {function} in {path}"


@cache
def flags_of(words: tuple[str, ...]) -> frozenset[str]:
    """The flags that the help of a verb (and its second word) names."""
    shown = io.StringIO()
    with redirect_stdout(shown), redirect_stderr(shown):
        assert main([*words, "--help"]) == 0
    return frozenset(re.findall(r"--[\w.-]+", shown.getvalue()))


def wrong_command(command: str) -> str:
    """What does not exist of a command, "" where all of it does."""
    words = shlex.split(command)
    flags = {word.partition("=")[0] for word in words if word.startswith("--")}
    if words[0] == "python":
        file = ROOT / words[1]
        if not file.is_file():
            return f"no file {words[1]}"
        text = file.read_text(encoding="utf-8")
        return ", ".join(sorted(flag for flag in flags if f'"{flag}"' not in text))
    if words[0] != "duihua" or words[1] not in VERBS:
        return f"no verb in {command}"
    if absent := [word for word in words if word.startswith("recipes/") and not (ROOT / word).is_file()]:
        return f"no file {absent[0]}"
    if words[1] == "figures" and "--only" in words:
        after = words[words.index("--only") + 1 :]
        names = after[: next((i for i, word in enumerate(after) if word.startswith("--")), len(after))]
        if unknown := [name for name in names if name not in PICTURES]:
            return f"no picture {unknown}"
    has_second = words[1] in SECOND_WORDS and not words[2].startswith("-")
    second = [words[2]] if has_second else [form for form in FORMS if form in flags]
    return ", ".join(sorted(flags - flags_of((words[1], *second))))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", PAGES)
def test_every_row_of_the_articles_is_there_with_command_and_test_or_said_to_be_missing(name: str) -> None:
    tables = sections((DOCS / name).read_text(encoding="utf-8"))
    assert [len(rows) for rows in tables] == list(ROWS.values())
    for row in (row for rows in tables for row in rows):
        assert bool(row.commands) == bool(row.tests) == row.built, row.item
    assert all(row.built for rows in tables[:3] for row in rows)


def test_every_named_test_exists() -> None:
    for row in rows_of("sources.md"):
        assert [found for found in map(missing_test, row.tests) if found] == [], row.item
    assert missing_test("nn/test_norms.py::test_no_such_thing") == "no test test_no_such_thing in nn/test_norms.py"
    assert missing_test("nn/test_nothing.py::test_x") == "no file nn/test_nothing.py"


def test_every_named_command_and_flag_exists() -> None:
    for row in rows_of("sources.md"):
        assert [found for found in map(wrong_command, row.commands) if found] == [], row.item
    assert wrong_command("duihua chta runs/quickstart") == "no verb in duihua chta runs/quickstart"
    assert wrong_command("duihua inspect gpt1 --al") == "--al"
    assert wrong_command("duihua figures --only causal-msk --html") == "no picture ['causal-msk']"
    assert wrong_command("python benchmarks/ablation.py --varants x") == "--varants"
    assert wrong_command("duihua run recipes/quikstart.yaml") == "no file recipes/quikstart.yaml"


def test_every_named_picture_exists_and_every_picture_is_named() -> None:
    named = {picture for row in rows_of("sources.md") for picture in row.pictures}
    assert named == set(PICTURES)


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere_and_every_broken_sample_is_linked(name: str) -> None:
    links = re.findall(r"\]\(([^)#]+)#?([^)]*)\)", (DOCS / name).read_text(encoding="utf-8"))
    for file, anchor in links:
        assert (DOCS / file).is_file(), file
        assert not anchor or anchor in anchors(DOCS / file), anchor
    page = DOCS / name.replace("sources", "broken-samples")
    samples = re.findall(r"^### .*$", page.read_text(encoding="utf-8"), re.MULTILINE)
    linked = {anchor for file, anchor in links if file == page.name and anchor}
    assert len(linked) == len(samples) == 30


def test_both_languages_name_the_same_things() -> None:
    english, chinese = (rows_of(name) for name in PAGES)
    assert [(row.commands, row.tests, row.pictures, row.built) for row in english] == [
        (row.commands, row.tests, row.pictures, row.built) for row in chinese
    ]
    assert all(re.search(r"[一-鿿]|RNN", row.item) for row in chinese)
