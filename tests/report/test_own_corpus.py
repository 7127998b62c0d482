"""A corpus of the user's own stands in the fingerprint of the stage that reads it: other files, another model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from duihua.data.source import SourceConfig
from duihua.data.word_corpus import write_word_corpus
from duihua.files import read_json, sha256_file
from duihua.models.recurrent_config import RecurrentConfig
from duihua.report.fingerprint import Fingerprints
from duihua.report.recipe import PlannedStage, Recipe
from duihua.report.runner import RunOutcome, run_recipe
from duihua.stages import find_stage
from duihua.stages.configs.recurrent import RecurrentTrainingConfig

LINES = ["a b c", "b c a", "c a b"]


def write_corpus(folder: Path, test: list[str]) -> None:
    write_word_corpus(folder, {"train": LINES * 4, "valid": LINES, "test": test})


def planned(folder: Path) -> PlannedStage:
    """A training of a few steps."""
    config = RecurrentTrainingConfig(
        corpus=str(folder), shape=RecurrentConfig(width=4, layers=1), rows=2, length=4, epochs=1.0, samples=0
    )
    return PlannedStage("recurrent", find_stage("recurrent"), config, {})


def go(folder: Path, output: Path) -> RunOutcome:
    return run_recipe(Recipe("own", {"en": "Own"}, 1, 1, (planned(folder),)), output, output.parent / "data")


def test_a_changed_corpus_makes_the_stage_stale(tmp_path: Path) -> None:
    corpus, output = tmp_path / "corpus", tmp_path / "run"
    write_corpus(corpus, LINES)
    assert go(corpus, output).stages == {"recurrent": "finished"}
    write_corpus(corpus, LINES)  # written again with the same content
    (corpus / "notes.txt").write_text("of no consequence", encoding="utf-8")
    assert go(corpus, output).stages == {"recurrent": "skipped"}
    before = read_json(output / "recurrent" / "result.json")["metrics"]["corpus"]["sha256"]["test"]
    write_corpus(corpus, ["a c b", "b b"])
    assert go(corpus, output).stages == {"recurrent": "finished"}
    after = read_json(output / "recurrent" / "result.json")["metrics"]["corpus"]["sha256"]["test"]
    assert before != after == sha256_file(corpus / "ptb.test.txt")
    (aside,) = read_json(output / "run.json")["moved_aside"]
    assert aside["why"] == [f"data.{corpus / 'ptb.test.txt'}: changed"]
    page = (output / "report.html").read_text(encoding="utf-8")
    assert '<section id="recurrent"' in page and "LSTM, 180 parameters" in page


def test_what_the_stage_does_not_read_is_not_in_its_fingerprint(tmp_path: Path) -> None:
    """Control of the test above: sources take the corpus' place, so that another corpus is no reason to run again."""
    write_corpus(tmp_path / "corpus", LINES)
    stage = planned(tmp_path / "corpus")
    sourced = replace(stage, config=replace(stage.config, sources=(SourceConfig(name="tiny-text"),)))

    def data(one: PlannedStage) -> set[str]:
        return set(Fingerprints(tmp_path, 1, 1).parts(one)["data"])

    assert data(stage) == {str(tmp_path / "corpus" / f"ptb.{part}.txt") for part in ("train", "valid", "test")}
    assert data(sourced) == {"tiny-text"}
