"""Chinese twins of what the stages write: every reason that the code can produce has one."""

from __future__ import annotations

import ast
import importlib
import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

import duihua
from duihua.data.source import KNOWN_SOURCES
from duihua.report.translations import REASONS, TERMS, chinese

PACKAGE = Path(duihua.__file__).parent
COUNTERS = {"left_out", "cut", "notes", "reasons"}
"""What the code calls the things that count reasons: LeftOut values, and the packer's set."""
RAISED = {"Fault", "BadRecordError", "DifferentPromptsError", "EqualSidesError", "NoReplyError"}
"""What carries a reason to a counter."""


def texts(node: ast.expr, constants: dict[str, str]) -> list[str]:
    """The strings that an expression may be, "7" in the place of whatever is filled in; none for a variable."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value] if node.value else []
    if isinstance(node, ast.IfExp):
        return texts(node.body, constants) + texts(node.orelse, constants)
    if isinstance(node, ast.Name):
        return [constants[node.id]] if node.id in constants else []
    if isinstance(node, ast.JoinedStr):
        found = [""]
        for part in node.values:
            inner = part.value if isinstance(part, ast.FormattedValue) else part
            choices = texts(inner, constants) if not isinstance(inner, ast.Name) else []
            found = [text + choice for text in found for choice in choices or ["7"]]
        return found
    return []


def assigned(target: ast.expr, value: ast.expr) -> list[tuple[ast.expr, ast.expr]]:
    """Each name with what it is given: one alone, or several at once (`A, B = "a", "b"`)."""
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        return list(zip(target.elts, value.elts, strict=False))
    return [(target, value)]


def reasons(source: str) -> Iterator[str]:
    """Every reason that a module can produce: what it adds to a counter, raises, or returns from a `problem` function."""
    tree = ast.parse(source)
    constants = {
        name.id: value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        for name, value in assigned(target, node.value)
        if isinstance(name, ast.Name) and isinstance(value, ast.Constant) and isinstance(value.value, str)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            called = node.func
            name = (
                called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
            )
            owner = called.value if isinstance(called, ast.Attribute) else None
            owner = (
                owner.value if isinstance(owner, ast.Subscript) else owner
            )  # one counter of several: left_out[split]
            holder = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
            if name in RAISED or (name == "add" and holder in COUNTERS):
                yield from texts(node.args[0], constants)
        if isinstance(node, ast.FunctionDef) and node.name == "problem":
            for inner in ast.walk(node):
                if isinstance(inner, ast.Return) and inner.value is not None:
                    yield from texts(inner.value, constants)


def all_reasons() -> set[str]:
    files = [file for part in ("data", "stages") for file in (PACKAGE / part).rglob("*.py")]
    return {reason for file in files for reason in reasons(file.read_text(encoding="utf-8"))}


def without_twin(found: set[str]) -> list[str]:
    return sorted(reason for reason in found if chinese(reason) is None)


def test_every_reason_of_the_code_has_its_chinese_twin() -> None:
    found = all_reasons()
    # The finder is not blind: it sees each of the ways in which a reason comes about.
    assert {
        "prompt met before",  # added to a counter
        "prompt longer than 7 tokens",  # returned by a `problem` function
        "last turns cut off, longer than a row",  # a constant of the packer
        "bytes that are not UTF-8",  # a fault
        "unknown role",  # a bad record
        "7 pair cut to 7 tokens",  # with values in it
        "pair met before",  # one of two constants that are assigned at once
        "chosen and rejected answer different prompts",  # a bad record of a kind of its own
    } <= found
    assert without_twin(found) == [], "add them to REASONS in report/translations.py"
    assert without_twin({"the moon was full"}) == ["the moon was full"]


def test_finder_reads_both_arms_constants_and_values() -> None:
    source = (
        'WORD = "a word"\n'
        'def problem(x):\n    return f"longer than {x.limit} tokens" if x else ""\n'
        "left_out.add(WORD, place)\nself.left_out.add(f\"{'twice' if y else 'thrice'} told\", place)\n"
        'seen.add("no reason")\nFault("broken", place)\n'
        'ONE, TWO = "first", "second"\nleft_out.add(ONE, place)\ndata.left_out[split].add(TWO, place)\n'
    )
    found = {"longer than 7 tokens", "a word", "twice told", "thrice told", "broken", "first", "second"}
    assert set(reasons(source)) == found


@pytest.mark.parametrize(
    ("english", "expected"),
    [
        ("prompt longer than 96 tokens", "提示超过 96 个词元"),
        ("human pair cut to 128 tokens", "人工偏好对截短到 128 个词元"),
        ("cut_short pair longer than 96 tokens", "截短对超过 96 个词元"),
        ("3 cells where the header has 5", "有 3 个单元格，而表头有 5 个"),
        ("file of a type that is not read as conversations (.pdf)", "此类型的文件不能作为对话读取（.pdf）"),
        ("law: nearly equals a held-out text of race-text", "law：几乎等于 race-text 的留出文本"),
        ("bad JSON: Expecting value", "JSON 有误：Expecting value"),
        ("bad JSON in a messages column", "消息列中的 JSON 有误"),
        ("bad JSON: {0.__class__}", "JSON 有误：{0.__class__}"),
        ("Some other reason", None),
    ],
)
def test_values_are_carried_over_and_unknown_sentences_have_no_twin(english: str, expected: str | None) -> None:
    assert chinese(english) == expected


def test_both_languages_name_the_same_values() -> None:
    def fields(template: str) -> set[str]:
        return {name for _, name, _, _ in string.Formatter().parse(template) if name}

    assert [one.en for one in (*REASONS, *TERMS) if fields(one.en) != fields(one.zh)] == []
    assert len({one.en for one in (*REASONS, *TERMS)}) == len(REASONS) + len(TERMS)


def is_a_name(licence: str) -> bool:
    """A licence's own name or SPDX tag, which is the same in every language: "CC BY-SA 4.0", "MIT"."""
    return re.fullmatch(r"[A-Z][A-Za-z]*[ -]?[A-Z0-9][\w .-]*|MIT", licence) is not None


def test_licences_and_notes_of_the_known_sources_have_their_twins() -> None:
    missing = []
    for module, name in KNOWN_SOURCES.values():
        terms = getattr(importlib.import_module(module), name).terms
        missing += [text for text in (terms.licence, terms.note) if text and not is_a_name(text) and not chinese(text)]
    assert sorted(set(missing)) == [], "add them to TERMS in report/translations.py"
    assert not is_a_name("see the data set's card") and not is_a_name("For research") and is_a_name("BSD-3-Clause")
