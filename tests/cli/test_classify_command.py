"""`duihua classify` as people type it: train, ask a file, and be told what is wrong with it."""

from __future__ import annotations

import gzip
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from duihua.cli.main import main
from duihua.models.bundle import ModelCard, save_bundle
from duihua.models.classifier import Classifier
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder
from duihua.models.task_bundle import TaskSettings, save_task_bundle
from duihua.text.task_inputs import Task
from duihua.text.tokenizer import Tokenizer


def make(directory: Path, task: Task, classes: tuple[str, ...]) -> Path:
    """A classifier with random weights."""
    tokenizer = Tokenizer.train(["a cat sings", "a dog runs", "你好"] * 9, 275)
    decoder = Decoder(DecoderConfig(tokenizer.vocabulary_size, 16, 1, 2, 1, 8, 24, 32)).initialise(0)
    classifier = Classifier(decoder, task, len(classes)).initialise(0)
    save_task_bundle(
        directory, classifier, tokenizer, ModelCard(title="tiny", stage="classify"), TaskSettings(task, classes, 32)
    )
    return directory


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("texts") / "model", "classification", ("bad", "good"))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("pairs") / "model", "similarity", ("no", "yes"))


@pytest.fixture(scope="module")
def choices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("choices") / "model", "multiple_choice", ())


def ask(model: Path, file: Path | str, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    """The `--json` answer, whose exit code must be 0."""
    capsys.readouterr()
    assert main(["classify", str(model), "--predict", str(file), "--json", *more]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def refused(model: Path, file: Path | str, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    """The one line that says what is wrong."""
    capsys.readouterr()
    assert main(["classify", str(model), "--predict", str(file), *more]) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    return shown.err


def test_the_same_texts_get_the_same_answers_from_every_kind_of_file(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["a cat sings", "a dog, runs", "你好\t你好"]
    (tmp_path / "a.txt").write_text("\ufeff" + "\r\n".join(given) + "\r\n", encoding="utf-8")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in given), encoding="utf-8")
    (tmp_path / "a.csv").write_text("id,body\n" + "".join(f'1,"{text}"\n' for text in given), encoding="utf-8")
    answers = ask(texts, tmp_path / "a.txt", capsys)
    assert answers["task"] == "classification" and answers["classes"] == ["bad", "good"]
    assert len(answers["predictions"]) == 3
    for answer in answers["predictions"]:
        assert answer["label"] == max(answer["probabilities"], key=answer["probabilities"].get)
        assert sum(answer["probabilities"].values()) == pytest.approx(1.0)
    assert ask(texts, tmp_path / "a.jsonl", capsys)["predictions"] == answers["predictions"]
    assert ask(texts, tmp_path / "a.csv", capsys, "--columns", "body")["predictions"] == answers["predictions"]
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress((tmp_path / "a.txt").read_bytes()))
    assert ask(texts, tmp_path / "a.txt.gz", capsys)["predictions"] == answers["predictions"]
    for form, name in (("txt", "a.txt"), ("jsonl", "a.jsonl")):
        piped = io.TextIOWrapper(io.BytesIO((tmp_path / name).read_bytes()))
        monkeypatch.setattr(sys, "stdin", piped)
        assert ask(texts, "-", capsys, "--form", form)["predictions"] == answers["predictions"]
    assert main(["classify", str(texts), f"--predict={tmp_path / 'a.txt'}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    first = answers["predictions"][0]
    assert len(lines) == 3
    assert lines[0].split("\t") == [first["label"], *(f"{k}={v:.4f}" for k, v in first["probabilities"].items())]


def test_pairs_and_choices_come_from_lines_and_columns(
    pairs: Path, choices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("a cat\ta dog\n", encoding="utf-8")
    (tmp_path / "a.tsv").write_text("sentence1\tsentence2\na cat\ta dog\n", encoding="utf-8")
    answer = ask(pairs, tmp_path / "a.txt", capsys)["predictions"]
    assert ask(pairs, tmp_path / "a.tsv", capsys)["predictions"] == answer
    assert ask(pairs, tmp_path / "a.tsv", capsys, "--columns", "sentence2,sentence1")["predictions"] == [
        {**answer[0], "probabilities": pytest.approx(answer[0]["probabilities"])}
    ]
    (tmp_path / "b.txt").write_text("a cat\tsings\truns\t你好\n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"question": "a cat", "choices": ["sings", "runs", "你好"]}\n', encoding="utf-8")
    (tmp_path / "b.csv").write_text('context,options\na cat,"[""sings"", ""runs"", ""你好""]"\n', encoding="utf-8")
    chosen = ask(choices, tmp_path / "b.txt", capsys)["predictions"]
    assert list(chosen[0]["probabilities"]) == ["0", "1", "2"]
    assert ask(choices, tmp_path / "b.jsonl", capsys)["predictions"] == chosen
    assert ask(choices, tmp_path / "b.csv", capsys)["predictions"] == chosen


def test_long_texts_are_cut_and_said(texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("a\n" + "zq" * 40 + "\n", encoding="utf-8")
    capsys.readouterr()
    assert main(["classify", str(texts), "--predict", str(tmp_path / "a.txt"), "--json"]) == 0
    shown = capsys.readouterr()
    assert [answer["cut_tokens"] for answer in json.loads(shown.out)["predictions"]] == [0, 50]
    assert "cut to 32 tokens, longest part first: 1 of 2 examples were longer" in shown.err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"fine\n\nfine\n", "a.txt:2: an empty text"),
        ("a.txt", b"fine\n\xff\n", "a.txt:2:1: bytes that are not UTF-8"),
        ("a.jsonl", b'{"text": "fine"}\n{"text": 3}\n', "a.jsonl:2: the column 'text' holds no text"),
        ("a.jsonl", b'{"text": "fine"}\n{"text"\n', "a.jsonl:2:8: bad JSON"),
        ("a.jsonl", b'{"body": "fine"}\n', "a.jsonl:1: no column of the names text, content"),
        ("a.csv", b"text,b\nfine,1\nfine\n", "a.csv:3: 1 cells where the header has 2"),
        ("a.bin", b"fine", "a file of a type that is not read"),
        ("none.txt", None, "none.txt: no such file"),
        ("none.csv", None, "none.csv: no such file"),
        ("a.txt.gz", b"fine", "a.txt.gz: cannot be read: Not a gzipped file"),
    ],
)
def test_a_line_that_is_no_example_is_named(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert message in refused(texts, tmp_path / name, capsys)


def test_examples_of_another_task_are_refused(
    pairs: Path, choices: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("one text\n", encoding="utf-8")
    (tmp_path / "a.jsonl").write_text('{"context": "a", "options": "b"}\n', encoding="utf-8")
    assert "a.txt:1: similarity needs two texts with a tab" in refused(pairs, tmp_path / "a.txt", capsys)
    assert "a.txt:1: multiple_choice takes two or more options, found 0" in refused(choices, tmp_path / "a.txt", capsys)
    assert "a.jsonl:1: the column 'options' holds no list" in refused(choices, tmp_path / "a.jsonl", capsys)
    assert "lines of plain text have no columns" in refused(texts, tmp_path / "a.txt", capsys, "--columns", "a")
    assert "similarity reads 2 columns, found 1" in refused(pairs, tmp_path / "a.jsonl", capsys, "--columns", "a")


def test_a_policy_cannot_be_asked_and_a_model_needs_questions(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = Tokenizer.train(["a cat sings"] * 9, 262)
    decoder = Decoder(DecoderConfig(tokenizer.vocabulary_size, 16, 1, 2, 1, 8, 24, 32)).initialise(0)
    save_bundle(tmp_path / "base", decoder, tokenizer, ModelCard(title="tiny", stage="pretrain"))
    (tmp_path / "a.txt").write_text("a\n", encoding="utf-8")
    assert "holds no classifier" in refused(tmp_path / "base", tmp_path / "a.txt", capsys)
    assert main(["classify", str(texts)]) == 2
    assert "a model to ask needs a file of questions. Add --predict FILE" in capsys.readouterr().err
    assert main(["classify", "--output", str(tmp_path / "out")]) == 2
    assert "--input policy=DIR" in capsys.readouterr().err


def test_both_forms_explain_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "--help"]) == 0
    shown = capsys.readouterr().out
    for text in (
        "duihua classify MODEL --predict FILE",
        "--auxiliary-weight",
        "Lambda of equation 5",
        "--input ROLE=DIR",
    ):
        assert text in shown
    assert main(["classify", "--predict", "--help"]) == 0
    assert "one example a line" in capsys.readouterr().out


def test_a_classifier_is_trained_and_asked_by_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [{"text": f"a {animal} {n}", "label": animal} for n in range(60) for animal in ("cat", "dog")]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    Tokenizer.train(["a cat sings", "a dog runs"] * 9, 270).save(tmp_path / "tokenizer")
    command = [
        "classify", "--input", f"tokenizer={tmp_path / 'tokenizer'}", "--output", str(tmp_path / "run"), "--json",
        "--source.name", "", "--source.path", str(tmp_path / "data.jsonl"), "--source.kind", "labelled", "--threads", "1",
        "--shape.width", "32", "--shape.layers", "1", "--context", "16", "--optimizer.learning-rate", "3e-3",
        "--auxiliary-weight", "0", "--data", str(tmp_path / "home"), "--seeds", "2", "--shape.feed-forward-width", "48",
    ]  # fmt: skip
    assert main(command) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["metrics"]["accuracy"]["value"] > 0.9
    assert outcome["metrics"]["baseline"]["accuracy"]["value"] < 0.9
    assert main(command) == 0
    assert "done already" in capsys.readouterr().err
    (tmp_path / "ask.txt").write_text("a cat 7\na dog 9\n", encoding="utf-8")
    found = ask(tmp_path / "run", tmp_path / "ask.txt", capsys)
    assert [answer["label"] for answer in found["predictions"]] == ["cat", "dog"]
