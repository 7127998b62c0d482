"""The checker finds each planted fault where it was planted, and finds nothing in clean data."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from duihua.data.check import EMPTY, EXACT, LEAK, NEAR, PROMPT_LEAK, CheckReport, LengthLimit, check
from duihua.data.near_duplicates import DuplicateIndex, similarity, sketch
from duihua.data.source import SourceConfig, open_source

WORDS = [
    "brew",
    "brown",
    "dogs",
    "fox",
    "jumps",
    "lazy",
    "near",
    "over",
    "quick",
    "quiet",
    "seven",
    "strong",
    "wizards",
]


def sentence(seed: int, words: int = 60) -> str:
    draw = random.Random(seed)
    return " ".join(draw.choice(WORDS) for _ in range(words))


def grams(text: str) -> set[str]:
    letters = text.replace(" ", "")
    return {letters[index : index + 8] for index in range(len(letters) - 7)}


def checked(tmp_path: Path, rows: list[object], kind: str = "text", **options: object) -> CheckReport:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return check(open_source(SourceConfig(path=str(path), kind=kind), tmp_path), **options)  # type: ignore[arg-type]


def chat(prompt: str, reply: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]}


def test_the_estimate_is_near_the_true_jaccard_similarity() -> None:
    for seed, changed in [(1, 0), (2, 2), (3, 10), (4, 60)]:
        words = sentence(seed).split()
        other = [*words[: 60 - changed], *sentence(seed + 100).split()[60 - changed :]]
        a, b = " ".join(words), " ".join(other)
        true = len(grams(a) & grams(b)) / len(grams(a) | grams(b))
        first, second = sketch(a), sketch(b)
        assert first is not None
        assert second is not None
        assert similarity(first, second) == pytest.approx(true, abs=0.27)  # three standard errors of 32 draws
    assert sketch("short") is None


def test_duplicates_are_found_and_different_texts_are_not() -> None:
    index = DuplicateIndex()
    base = sentence(5, 200)
    assert index.add(0, base) is None
    assert index.add(1, base.upper() + "!") == (0, True)
    assert index.add(2, base.replace("wizards", "witches", 1)) == (0, False)
    assert index.add(3, sentence(6, 200)) is None
    assert index.add(4, "嗨") is None
    assert index.add(5, "嗨！") == (4, True)


def test_clean_data_is_clean(tmp_path: Path) -> None:
    report = checked(tmp_path, [{"text": sentence(seed)} for seed in range(50)])
    assert report.clean
    assert report.records.total() == 50
    assert report.to_mapping()["problems"] == []


def test_planted_duplicates_are_named_with_both_places(tmp_path: Path) -> None:
    texts = [sentence(seed, 200) for seed in range(20)]
    report = checked(tmp_path, [{"text": text} for text in [*texts, texts[3], texts[5].replace("seven", "eight", 1)]])
    found = {problem.reason: problem for problems in report.examples.values() for problem in problems}
    # the copy and its original fall on one side; the changed one may fall on the other
    assert report.problems.total() == 2
    assert found[EXACT].place.endswith("data.jsonl:21")
    assert found[EXACT].other_place.endswith("data.jsonl:4")
    near = found.get(NEAR) or found[LEAK]
    assert {near.place.rsplit(":", 1)[1], near.other_place.rsplit(":", 1)[1]} == {"22", "6"}


def test_leakage_into_a_held_out_file_is_found_by_record_and_by_prompt(tmp_path: Path) -> None:
    train, heldout = tmp_path / "train.jsonl", tmp_path / "val.jsonl"
    train.write_text("".join(json.dumps(chat(f"question {n}", sentence(n))) + "\n" for n in range(20)))
    rows = [chat("question 7", sentence(7)), chat("Question 8?", sentence(99)), chat("new", sentence(98))]
    heldout.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = [open_source(SourceConfig(path=str(path), kind="conversations"), tmp_path) for path in (train, heldout)]
    report = check(*sources)
    assert report.records == {"train": 20, "heldout": 3}
    assert [problem.place.rsplit(":", 1)[1] for problem in report.examples[LEAK]] == ["1"]
    assert [problem.place.rsplit(":", 1)[1] for problem in report.examples[PROMPT_LEAK]] == ["1", "2"]
    # without the planted rows nothing is found
    heldout.write_text(json.dumps(rows[2]) + "\n")
    assert check(sources[0], open_source(SourceConfig(path=str(heldout), kind="conversations"), tmp_path)).clean


def test_every_bad_record_is_named_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    good = json.dumps(chat("q", "r")).encode()
    bad = [
        b"{",
        b"\xff",
        json.dumps({"messages": [{"role": "robot", "content": "x"}]}).encode(),
        json.dumps(chat("q", " ")).encode(),
    ]
    path.write_bytes(b"\n".join([good, *bad]) + b"\n")
    report = check(open_source(SourceConfig(path=str(path), kind="conversations"), tmp_path))
    places = sorted(p.place.removeprefix(str(path)) for problems in report.examples.values() for p in problems)
    assert places == [":2:2", ":3:1", ":4: messages[0].role", ":5: messages[1].content"]
    assert report.left_out.total == 4
    assert not report.clean


def test_over_long_conversations_are_told_but_not_left_out(tmp_path: Path) -> None:
    limit = LengthLimit(20, "characters", len)
    report = checked(tmp_path, [chat("q", "r" * 30), chat("q2", "r")], "conversations", limit=limit)
    assert dict(report.problems) == {"longer than 20 characters": 1}
    assert report.left_out.total == 0
    assert report.records.total() == 2


def test_examples_are_few_and_counts_are_whole(tmp_path: Path) -> None:
    report = checked(tmp_path, [{"text": "the same"}] * 30, examples=5)
    assert report.problems[EXACT] == 29
    assert len(report.examples[EXACT]) == 5


def test_an_empty_source_is_no_clean_one(tmp_path: Path) -> None:
    report = checked(tmp_path, [], "conversations")
    assert dict(report.problems) == {EMPTY: 1}
    assert not report.clean
    assert checked(tmp_path, [chat("What is it?", "A test.")], "conversations").clean  # control
    bad = checked(tmp_path, [{"messages": []}], "conversations")
    assert EMPTY not in bad.problems  # what is wrong with its records is said instead
    assert not bad.clean
