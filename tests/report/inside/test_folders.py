"""Folders are what their files say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from duihua.errors import BundleError
from duihua.report.inside.folders import subject_of


def test_each_kind_of_folder_lands_in_its_place(models: Path) -> None:
    subject = subject_of([models / "translator", models / "lstm", models / "sft"])
    assert (subject.model, subject.translator, subject.recurrent) == (
        models / "sft",
        models / "translator",
        models / "lstm",
    )
    assert list(subject.metrics) == ["sft"]


def test_a_run_gives_its_most_trained_model_and_all_its_curves(models: Path, tmp_path: Path) -> None:
    for name in ("pretrain", "sft", "reward", "tokenizer"):
        shutil.copytree(models / "sft", tmp_path / "run" / name)
    config = json.loads((tmp_path / "run" / "reward" / "config.json").read_text())
    config["architectures"] = ["Qwen3ForSequenceClassification"]
    (tmp_path / "run" / "reward" / "config.json").write_text(json.dumps(config))
    (tmp_path / "run" / "sft" / "result.json").write_text('{"metrics": {}}')
    subject = subject_of([tmp_path / "run"])
    assert subject.model == tmp_path / "run" / "sft"
    assert list(subject.metrics)[:3] == ["pretrain", "sft", "reward"]
    assert list(subject.measurements) == [tmp_path / "run" / "sft" / "result.json"]
    assert subject_of([tmp_path / "run" / "reward"]).model is None


def test_what_is_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such folder"):
        subject_of([tmp_path / "nowhere"])
    with pytest.raises(BundleError, match="neither a model nor a run"):
        subject_of([tmp_path])
