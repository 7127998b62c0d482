"""`duihua ngram` and `duihua bag_of_words` as people type them: train, let write, ask, search, and be told what is wrong."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from duihua.cli.main import main

TEXTS = ["the cat sat on the mat", "a dog ran to the park", "graphics cards draw triangles", "the mat is on the floor"]


@pytest.fixture
def trigram(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    (tmp_path / "text.jsonl").write_text(
        "".join(json.dumps({"text": f"{text} {i}"}) + "\n" for i, text in enumerate(TEXTS * 15)), encoding="utf-8"
    )
    folder = tmp_path / "trigram"
    command = [
        "ngram",
        "--output",
        str(folder),
        "--sources.0.name",
        "",
        "--sources.0.path",
        str(tmp_path / "text.jsonl"),
    ]
    assert main([*command, "--samples", "1"]) == 0
    shown = capsys.readouterr().out
    assert "held-out perplexity" in shown
    assert "it writes" in shown
    return folder


@pytest.fixture
def bag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    rows = [
        {"text": f"{text} {i}", "label": "pets" if "dog" in text or "cat" in text else "rest"}
        for i, text in enumerate(TEXTS * 15)
    ]
    (tmp_path / "labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    folder = tmp_path / "bag"
    (tmp_path / "bag.yaml").write_text(
        f"source: {{path: {tmp_path / 'labelled.jsonl'}, kind: labelled}}\n", encoding="utf-8"
    )
    assert main(["bag_of_words", "--output", str(folder), "--config", str(tmp_path / "bag.yaml")]) == 0
    assert "what tells 'pets'" in capsys.readouterr().out
    return folder


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_an_ngram_model_writes_on(trigram: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "ngram", str(trigram), "--generate", "the cat sat", "--samples", "2", "--tokens", "5")
    assert all(text.startswith("the cat sat") for text in found["texts"])
    assert (found["prompt_tokens"], found["unknown_in_prompt"], found["order"]) == (3, 0, 3)
    again = answer(capsys, "ngram", str(trigram), "--generate", "the cat sat", "--samples", "2", "--tokens", "5")
    assert again == found
    assert len(answer(capsys, "ngram", str(trigram), "--generate")["texts"]) == 3
    greedy = answer(capsys, "ngram", str(trigram), "--generate", "the cat", "--temperature", "0", "--samples", "2")
    assert greedy["texts"][0] == greedy["texts"][1]


def test_a_bag_answers_and_searches(bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ask.txt").write_text("a dog and a cat\ntriangles on the floor\nxyzzy\n", encoding="utf-8")
    found = answer(capsys, "bag_of_words", str(bag), "--predict", str(tmp_path / "ask.txt"))
    assert [each["label"] for each in found["predictions"]][:2] == ["pets", "rest"]
    assert all(abs(sum(each["probabilities"].values()) - 1) < 1e-9 for each in found["predictions"])
    assert found["predictions"][2]["words"] == 0
    assert main(["bag_of_words", str(bag), "--predict", str(tmp_path / "ask.txt")]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("pets\tpets=")
    assert "1 of 3 texts hold no word" in shown.err
    for model in ([], [str(bag)]):
        hits = answer(capsys, "bag_of_words", *model, "--search", "triangles", "--documents", str(tmp_path / "ask.txt"))
        assert [hit["number"] for hit in hits["hits"]] == [2]


def test_chinese_is_searched_by_words(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lines = "我们研究自然语言处理\n今天天气很好\n语言学校在北京\n".encode()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(lines)))
    found = answer(capsys, "bag_of_words", "--search", "自然语言", "--documents", "-")
    assert [hit["number"] for hit in found["hits"]] == [1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ngram", "runs/x"], "Add --generate"),
        (["ngram", "runs/x", "--generate", "a"], "no such directory"),
        (["ngram", "runs/x", "--generate", "a", "--tokens", "0"], "at least 1"),
        (["bag_of_words", "runs/x"], "Add --predict FILE"),
        (["bag_of_words", "--predict", "a.txt"], "needs a model"),
        (["bag_of_words", "--search", "a"], "nothing to search in"),
        (["bag_of_words", "--search", "a", "--documents", "nowhere.txt"], "no such file"),
        (["bag_of_words", "--search", "a", "--documents", "b.txt", "--k", "0"], "at least 1"),
        (["ngram"], "no folder to write to"),
    ],
)
def test_what_is_wrong_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert len(shown.err.splitlines()) == 1
