"""`duihua translate`: train by the stage's flags, translate files and pipes in order, score with signatures."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from duihua.cli.main import main
from duihua.engine.beam_settings import BeamSettings
from duihua.engine.translation_model import TranslationModel
from duihua.errors import BundleError

WORDS = {"bo": "red", "ka": "blue", "mi": "cat", "lu": "dog"}


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(list(words))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A translator that has been trained for a moment, by the command."""
    folder = tmp_path_factory.mktemp("translate")
    rows = [(a, b, c, str(d)) for a in WORDS for b in WORDS for c in WORDS for d in range(4)]
    lines = [f"{a} {b} {c} {d}\t{WORDS[a]} {WORDS[b]} {WORDS[c]} {d}\n" for a, b, c, d in rows]
    (folder / "pairs.tsv").write_text("xx\ten\n" + "".join(lines), "utf-8")
    (folder / "settings.yaml").write_text(
        "vocabulary_size: 270\nepochs: 1\nlongest: 30\nbatch_tokens: 1500\n"
        "transformer: {width: 16, encoder_layers: 1, decoder_layers: 1, heads: 2, feed_forward_width: 16, most_tokens: 32}\n"
        f"sources: [{{path: {folder / 'pairs.tsv'}, languages: xx-en}}]\n"
        "trainer: {evaluate_every: 0, checkpoint_seconds: 1000}\n",
        "utf-8",
    )
    words = ["--config", str(folder / "settings.yaml"), "--from", "xx", "--to", "en", "--output", str(folder / "run")]
    assert main(["translate", "train", *words]) == 0
    return folder


def expected(model: Path, texts: Sequence[str], **settings: Any) -> list[list[str]]:
    search = BeamSettings(stopping="estimate", **settings)
    found = TranslationModel.load(model / "run").translate(texts, ("xx", "en"), search)
    return [[each.text for each in answers] for answers in found]


def test_a_file_is_translated_line_by_line_and_empty_lines_keep_their_places(
    model: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    texts = ["bo ka", "", "mi", *["lu bo"] * 70, "ka"]
    (tmp_path / "in.txt").write_text("\n".join(texts), "utf-8")
    code, out, _ = run(capsys, "translate", "run", str(model / "run"), str(tmp_path / "in.txt"), "--beam", "2")
    assert code == 0
    assert out.split("\n")[:-1] == [answers[0] for answers in expected(model, texts, beam=2)]
    assert out.split("\n")[1] == ""


def test_n_best_and_json(model: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("bo ka\n\n", "utf-8")
    ask = ("translate", "run", str(model / "run"), str(tmp_path / "in.txt"), "--beam", "3", "--n-best", "2")
    _, out, _ = run(capsys, *ask)
    rows = [line.split("\t") for line in out.splitlines()]
    assert [row[:2] for row in rows] == [["1", "1"], ["1", "2"], ["2", "1"]]
    assert float(rows[0][2]) >= float(rows[1][2])
    assert [rows[0][3], rows[1][3]] == expected(model, ["bo ka"], beam=3, n_best=2)[0]
    _, out, _ = run(capsys, *ask, "--json")
    told = json.loads(out)
    assert (told["from"], told["to"]) == ("xx", "en")
    assert [len(each["translations"]) for each in told["translations"]] == [2, 1]
    assert told["search"]["length_penalty"] == "gnmt"


def test_a_pipe_is_answered_line_by_line_before_it_ends(model: Path) -> None:
    """The first answer comes while standard input is still open: nothing waits for a full chunk."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "duihua", "translate", "run", str(model / "run"), "--beam", "1"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=environment
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        wanted = [answers[0] for answers in expected(model, ["bo ka", "mi lu"], beam=1)]
        for text, right in zip(["bo ka", "mi lu"], wanted, strict=True):
            process.stdin.write(f"{text}\n")
            process.stdin.flush()
            assert process.stdout.readline().rstrip("\n") == right
        process.stdin.close()
        assert process.wait(60) == 0


@pytest.mark.parametrize("by", ["file", "pipe"])
def test_a_line_that_is_too_long_is_named_or_cut(
    model: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    text = "bo\n" + "ka " * 90 + "\nmi\n"
    (tmp_path / "in.txt").write_text(text, "utf-8")
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    target = str(tmp_path / "in.txt") if by == "file" else "-"
    code, _, told = run(capsys, "translate", "run", str(model / "run"), target)
    assert code == 2
    assert told.startswith(f"duihua: {target if by == 'file' else 'standard input'}:2: ") and "--cut" in told
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    code, out, told = run(capsys, "translate", "run", str(model / "run"), target, "--cut")
    assert code == 0 and len(out.splitlines()) == 3
    assert "1 of 3 lines were longer" in told


class Failing:
    """Standard input that breaks after a line, as a terminal that is closed or a disk that is gone."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def isatty(self) -> bool:
        return False

    def __iter__(self) -> Iterator[str]:
        yield "bo ka\n"
        raise self.error


def ended(work: Callable[[], int]) -> list[int | BaseException]:
    """What a command came to, asked for in a thread: one that waits for ever ends no test run, and comes to nothing."""
    found: list[int | BaseException] = []

    def ask() -> None:
        try:
            found.append(work())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(20)
    return found


def test_standard_input_that_breaks_ends_the_command_with_one_line(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stops the thread that reads must reach the one that waits for it."""
    monkeypatch.setattr(sys, "stdin", Failing(OSError(5, "Input/output error")))
    assert ended(lambda: main(["translate", "run", str(model / "run"), "--beam", "1"])) == [2]
    captured = capsys.readouterr()
    assert captured.out == expected(model, ["bo ka"], beam=1)[0][0] + "\n"  # what came before is answered
    assert captured.err == (
        "duihua: standard input:2: cannot be read: Input/output error. Give the text as a file, or run it again.\n"
    )
    monkeypatch.setattr(sys, "stdin", Failing(ZeroDivisionError("a mistake of ours")))
    (mistake,) = ended(lambda: main(["translate", "run", str(model / "run"), "--beam", "1"]))
    assert isinstance(mistake, ZeroDivisionError)  # not hidden, and not waited for either


def test_an_unknown_direction_a_wrong_beam_and_another_folder_are_one_line(
    model: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for words, message in [
        ((str(model / "run"), "--to", "zh"), "does not translate any language to zh"),
        ((str(model / "run"), "--beam", "2", "--n-best", "3"), "n_best"),
        ((str(tmp_path),), "holds no translator"),
    ]:
        code, _, told = run(capsys, "translate", "run", *words, "-")
        assert code == 2 and message in told and told.count("\n") == 1
    code, _, told = run(capsys, "translate", "rum")
    assert code == 2 and "run" in told


def test_the_folder_of_a_run_stands_for_its_only_translator(model: Path, tmp_path: Path) -> None:
    (tmp_path / "translate").symlink_to(model / "run")
    (tmp_path / "aside").mkdir()
    assert TranslationModel.load(tmp_path).directory == tmp_path / "translate"
    (tmp_path / "another").symlink_to(model / "run")
    with pytest.raises(BundleError, match="several translators") as error:
        TranslationModel.load(tmp_path)
    assert str(tmp_path / "another") in str(error.value)


def test_a_model_is_scored_on_a_table_of_the_users(
    model: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ask = ("translate", "score", str(model / "run"), "--test", str(model / "pairs.tsv"), "--beam", "1")
    code, out, _ = run(capsys, *ask, "--json", "--output", str(tmp_path / "out.txt"))
    told = json.loads(out)
    assert code == 0 and told["part"] == "test"
    for name in ("bleu", "chrf"):
        assert told[name]["signature"].startswith("nrefs:")
    assert sum(each["sentences"] for each in told["by_length"]["buckets"]) == told["sentences"]
    assert len((tmp_path / "out.txt").read_text("utf-8").splitlines()) == told["sentences"]
    code, out, _ = run(capsys, *ask)
    assert code == 0 and out.count("nrefs:") >= 2


def test_files_are_scored_and_unequal_ones_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name, lines in {"hyp": 2, "ref": 2, "short": 1}.items():
        (tmp_path / name).write_text("the cat sat on the mat here\n" * lines, "utf-8")
    ask = ("translate", "score", "--hypotheses", str(tmp_path / "hyp"), "--language", "en", "--references")
    code, out, _ = run(capsys, *ask, str(tmp_path / "ref"), "--json")
    assert code == 0 and json.loads(out)["bleu"]["value"] == pytest.approx(100)
    code, _, told = run(capsys, *ask, str(tmp_path / "short"))
    assert code == 2 and "1 lines, and" in told
    code, _, told = run(capsys, "translate", "score", "--hypotheses", str(tmp_path / "hyp"))
    assert code == 2 and "--references and --language" in told
    code, _, told = run(capsys, "translate", "score")
    assert code == 2 and "either a model and --test" in told


def test_help_names_the_three_words(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "translate", "--help")
    assert code == 0 and all(word in out for word in ("train", "run", "score"))
