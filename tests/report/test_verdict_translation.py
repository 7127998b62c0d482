"""Is a translator's loss normal? The verdict and its checks follow the numbers of the run."""

from __future__ import annotations

import json
import math
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from duihua.report.run_record import read_run
from duihua.report.verdict import checks, loss_verdict
from duihua.report.verdict_translation import smoothing_floor

build_fake_run = runpy.run_path(str(Path(__file__).with_name("fake_run.py")))["build_fake_run"]


def change(run: Path, **values: Any) -> Path:
    path = run / "translate" / "result.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    stored["metrics"].update(values)
    path.write_text(json.dumps(stored), encoding="utf-8")
    return run


def words(run: Path) -> dict[str, str]:
    """Status by the English text of each check."""
    return {str(check.text): check.status for check in checks(read_run(run))}


def rewrite_rows(run: Path, name: str, value: Any) -> None:
    """Every row's figure of that name becomes value(step, old)."""
    path = run / "translate" / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        if name in row:
            row[name] = value(row["step"], row[name])
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    found: Path = build_fake_run(tmp_path, stages=("translate",))
    return found


@pytest.mark.parametrize(
    ("loss", "bleu", "status", "start"),
    [
        (1.57, 47.3, "good", "Yes."),
        (3.1, 12.0, "watch", "It has learned, but"),
        (9.2, 0.1, "bad", "No. Validation perplexity"),
        (float("nan"), 0.0, "bad", "No. The held-out loss"),
    ],
)
def test_the_verdict_goes_by_validation_perplexity_and_bleu(
    run: Path, loss: float, bleu: float, status: str, start: str
) -> None:
    measured = {"validation_loss": loss, "validation_perplexity": math.exp(loss), "validation_bleu": bleu}
    verdict = loss_verdict(read_run(change(run, candidates={"averaged": measured})))
    assert verdict is not None
    assert verdict.status == status
    assert f'lang="en">{start}' in verdict.text


def test_pretraining_of_the_same_run_is_judged_first(tmp_path: Path) -> None:
    verdict = loss_verdict(read_run(build_fake_run(tmp_path, stages=("tokenizer", "pretrain", "translate"))))
    assert verdict is not None and "bits per byte" in verdict.text


def test_a_healthy_translator_has_only_good_checks(run: Path) -> None:
    found = words(run)
    assert set(found.values()) == {"good"} and len(found) == 5
    shown = " ".join(found)
    assert "near ln(vocabulary) = 8.99" in shown and "never fall below 1.22" in shown
    assert "is close to training loss" in shown and "BLEU is level" in shown


def test_faults_of_a_translation_run_are_named(run: Path) -> None:
    rewrite_rows(run, "validation_loss", lambda step, old: 2.4)
    rewrite_rows(run, "validation_bleu", lambda step, old: 40.0 if step < 300 else 30.0)
    rewrite_rows(run, "plain_loss", lambda step, old: 12.0 if step == 1 else old)
    found = words(run)
    watched = " ".join(text for text, status in found.items() if status == "watch")
    assert "it learns by heart" in watched and "fell from 40.0 to 30.0" in watched and "worse than guessing" in watched


def test_bleu_that_still_rises_asks_for_more_epochs(run: Path) -> None:
    rewrite_rows(run, "validation_bleu", lambda step, old: step / 20)
    assert any("still rose at the last evaluation (30.0)" in text for text in words(run))


def test_the_floor_of_smoothed_targets_is_their_entropy_by_torch() -> None:
    """The least of torch's own smoothed cross-entropy over all logits is reached where the prediction is the target."""
    ids, smoothing = 50, 0.1
    target = torch.full((1, ids), smoothing / ids, dtype=torch.float64)
    target[0, 7] += 1 - smoothing
    least = torch.nn.functional.cross_entropy(target.log(), torch.tensor([7]), label_smoothing=smoothing)
    assert smoothing_floor(smoothing, ids) == pytest.approx(float(least))
    other = target.clone()
    other[0, 7] *= 2
    worse = torch.nn.functional.cross_entropy(other.log(), torch.tensor([7]), label_smoothing=smoothing)
    assert float(worse) > smoothing_floor(smoothing, ids)  # any other prediction costs more
    assert smoothing_floor(0.0, ids) == 0.0
