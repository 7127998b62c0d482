"""What a checkpoint folder promises: whole, hashed, kept by policy, and readable in the older form."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from duihua.errors import CheckpointError, ConfigError, TrainingError
from duihua.files import sha256_file
from duihua.report.watching import Tail
from duihua.training import checkpoints
from duihua.training.checkpoints import (
    HASHED,
    BackgroundWriter,
    load_newest,
    load_weights,
    save_checkpoint,
    saved_steps,
    snapshot,
)
from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig
from duihua.training.metrics_file import best_step, cut_metrics, read_metrics, write_line
from duihua.training.trainer import LossParts, Trainer

STATE = {"place": 3, "nested": [{"moment": torch.arange(4.0)}, "text"], "none": None}


def save(folder: Path, step: int, keep: int = 2, best: int | None = None) -> Path:
    return save_checkpoint(folder, step, {"w": torch.full((2, 2), float(step))}, STATE, keep, best)


def test_what_was_saved_comes_back_and_sha256sum_agrees(tmp_path: Path) -> None:
    written = save(tmp_path, 7)
    found = load_newest(tmp_path)
    assert found is not None
    step, weights, state, damaged = found
    assert (step, damaged) == (7, [])
    assert torch.equal(weights["w"], torch.full((2, 2), 7.0))
    assert torch.equal(state["nested"][0]["moment"], torch.arange(4.0))
    assert (state["place"], state["nested"][1], state["none"]) == (3, "text", None)
    if shutil.which("sha256sum"):
        checked = subprocess.run(
            ["sha256sum", "--check", "SHA256SUMS"], cwd=written, capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0 and checked.stdout.count(": OK") == len(HASHED)


@pytest.mark.parametrize("file", [*HASHED, "SHA256SUMS"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_any_damage_to_any_file_is_noticed(tmp_path: Path, file: str, damage: str) -> None:
    save(tmp_path, 6)
    target = save(tmp_path, 7) / file
    data = bytearray(target.read_bytes())
    data[len(data) // 2] ^= 4
    if damage == "gone":
        target.unlink()
    else:
        target.write_bytes(data if damage == "flipped" else data[: len(data) // 2])
    found = load_newest(tmp_path)
    assert found is not None
    assert found[0] == 6
    assert found[3][0].startswith(f"step-00000007 ({file} ") or file == "SHA256SUMS"


def test_a_folder_under_another_name_is_not_believed(tmp_path: Path) -> None:
    save(tmp_path, 6).rename(tmp_path / "step-00000009")
    with pytest.raises(CheckpointError, match="it is of step 6 and was renamed"):
        load_newest(tmp_path)


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    for step in range(1, 8):
        save(tmp_path, step, keep=2, best=3 if step >= 3 else None)
    assert saved_steps(tmp_path) == [3, 6, 7]
    assert float(load_weights(tmp_path, 3)["w"][0, 0]) == 3.0
    save(tmp_path, 8, keep=1, best=7)
    assert saved_steps(tmp_path) == [7, 8]
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_weights(tmp_path, 3)


def test_one_that_was_passed_over_goes_and_does_not_count_as_one_of_the_newest(tmp_path: Path) -> None:
    for step in (3, 6, 9):
        save(tmp_path, step)
    (tmp_path / "step-00000009" / "state.json").write_text("{")
    save(tmp_path, 7)
    assert saved_steps(tmp_path) == [6, 7]


def test_the_older_form_is_read(tmp_path: Path) -> None:
    """Its hashes stood inside state.json, and state.json had none."""
    folder = save(tmp_path, 5)
    head = json.loads((folder / "state.json").read_text())
    names = ("weights.safetensors", "state.safetensors")
    head |= {"format": 1, "sha256": {name: sha256_file(folder / name) for name in names}}
    (folder / "state.json").write_text(json.dumps(head))
    (folder / "SHA256SUMS").unlink()
    found = load_newest(tmp_path)
    assert found is not None and found[0] == 5
    (folder / names[0]).write_bytes((folder / names[0]).read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="all checkpoints are damaged"):
        load_newest(tmp_path)


# -- in the background ----------------------------------------------------------------------------------------------------


def test_a_checkpoint_in_the_background_holds_what_was_when_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    real = checkpoints.save_file

    def slow(*arguments: Any) -> None:
        begun.set()
        assert go_on.wait(30)
        real(*arguments)

    monkeypatch.setattr(checkpoints, "save_file", slow)
    weights, state = {"w": torch.zeros(3)}, {"moment": torch.zeros(2), "list": [1]}
    writer = BackgroundWriter()
    writer.start(tmp_path, 1, snapshot(weights, state), keep=2)
    assert begun.wait(30)
    weights["w"].add_(1)  # the next steps, while the disk is busy
    state["moment"].add_(1)  # type: ignore[attr-defined]
    state["list"].append(2)  # type: ignore[attr-defined]
    assert saved_steps(tmp_path) == []
    go_on.set()
    writer.finish()
    found = load_newest(tmp_path)
    assert found is not None
    assert (found[1]["w"].tolist(), found[2]["moment"].tolist(), found[2]["list"]) == ([0] * 3, [0] * 2, [1])


def test_the_fault_of_a_background_writer_is_raised_by_the_next_one_and_once(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    writer = BackgroundWriter()
    copied = snapshot({"w": torch.zeros(3)}, {})
    writer.start(blocked, 1, copied, keep=2)
    with pytest.raises(CheckpointError, match="cannot write the checkpoint"):
        writer.start(tmp_path, 2, copied, keep=2)
    writer.start(tmp_path, 3, copied, keep=2)
    writer.finish()
    assert saved_steps(tmp_path) == [3]


# -- the metrics beside them -----------------------------------------------------------------------------------------------


def test_cutting_never_leaves_half_a_file_and_writes_only_when_it_must(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.jsonl"
    for step in range(1, 6):
        write_line(path, {"step": step, "loss": 0.5})
    before = path.stat().st_mtime_ns
    cut_metrics(path, 5)
    assert path.stat().st_mtime_ns == before
    with open(path, "a", encoding="utf-8") as file:
        file.write('{"step": 5, "lo')  # kill -9 in the middle of a line
    monkeypatch.setattr(Path, "write_text", lambda *a, **k: pytest.fail("written in place"))
    cut_metrics(path, 3)
    assert [line["step"] for line in read_metrics(path)] == [1, 2, 3]
    assert path.read_text().endswith("\n")


def test_texts_among_the_figures_hide_no_line(tmp_path: Path) -> None:
    """Python's splitlines cuts at these marks, which JSON leaves as they are: the evaluations of such a text were lost."""
    path = tmp_path / "metrics.jsonl"
    for step, error, mark in ((10, 1.0, "\u2028"), (20, 2.0, "none"), (30, 0.5, "\x85")):
        write_line(path, {"step": step, "error": error, "sample_text": f"one{mark}two"})
    assert len(path.read_text(encoding="utf-8").splitlines()) > 3
    assert [line["step"] for line in read_metrics(path)] == [10, 20, 30]
    assert [row["step"] for row in Tail(path).read()] == [10, 20, 30]
    assert best_step(path, "error", False, [10, 20, 30]) == 30
    before = path.read_bytes()
    cut_metrics(path, 30)
    assert path.read_bytes() == before


def test_the_best_step_is_told_by_evaluations_alone(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for step, loss, measured in ((2, 9.0, 0.5), (4, 0.1, 0.3), (6, 9.0, 0.3), (8, 9.0, 0.4)):
        write_line(path, {"step": step, "loss": loss, "heldout": loss, "learning_rate": 0.1})
        write_line(path, {"step": step, "heldout": measured})
    assert best_step(path, "heldout", False, [2, 4, 6, 8]) == 4
    assert best_step(path, "heldout", True, [2, 4, 6, 8]) == 2
    assert best_step(path, "heldout", False, [2, 8]) == 8  # of the others there is no checkpoint any more
    assert best_step(path, "other", False, [2, 4]) is None


# -- the policy in the loop ------------------------------------------------------------------------------------------------


class Batches:
    def next(self) -> list[dict[str, Any]]:
        return [{"x": torch.ones(1, 2)}]

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def trainer(folder: Path, evaluate: Any, **changes: Any) -> Trainer:
    torch.manual_seed(0)
    return Trainer(
        torch.nn.Linear(2, 1),
        lambda network, batch: LossParts(network(batch["x"]).sum(), 1.0),
        Batches(),
        steps=12,
        optimizer=OptimizerConfig(kind="sgd", learning_rate=0.1, momentum=0.0),
        schedule=ScheduleConfig(kind="constant", warmup_steps=0),
        config=TrainerConfig(log_every=1, checkpoint_seconds=1e9, **{"evaluate_every": 2, **changes}),
        directory=folder,
        evaluate=evaluate,
        label="test",
    )


@pytest.mark.parametrize(("best_is", "wanted", "kept"), [("lowest", 6, [6, 10, 12]), ("highest", 12, [2, 10, 12])])
def test_the_best_checkpoint_stays_and_the_model_ends_with_it(
    tmp_path: Path, best_is: Any, wanted: int, kept: list[int]
) -> None:
    seen: dict[int, torch.Tensor] = {}

    def evaluate(step: int) -> dict[str, float]:
        assert saved_steps(tmp_path / "checkpoints")[-1] == step, "a checkpoint is written before every evaluation"
        seen[step] = made.network.weight.detach().clone()  # type: ignore[union-attr, operator]
        return {"error": abs(step - 6.0), "other": 1.0}

    made = trainer(tmp_path, evaluate, keep_best="error", best_is=best_is, end_with="best")
    made.run()
    assert saved_steps(tmp_path / "checkpoints") == kept  # of two equally good ones the earlier, until step 12 is known
    assert torch.equal(made.network.weight, seen[wanted])  # type: ignore[arg-type]
    assert wanted == 12 or not torch.equal(seen[12], seen[wanted])


def test_a_figure_that_no_evaluation_gives_is_refused_at_the_first_one(tmp_path: Path) -> None:
    made = trainer(tmp_path, lambda step: {"error": 1.0}, keep_best="eror")
    with pytest.raises(TrainingError, match="an evaluation measures error, and not 'eror'"):
        made.run()
    assert made.step_number == 2


def test_a_best_without_evaluations_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="nothing that this training could measure"):
        trainer(tmp_path, None)
    with pytest.raises(TrainingError, match="needs evaluations"):
        trainer(tmp_path, lambda step: {"error": 1.0}, evaluate_every=0, keep_best="error")
    with pytest.raises(ConfigError, match="needs keep_best"):
        TrainerConfig(end_with="best")


@pytest.mark.parametrize("figure", ["heldout_judge", "heldout_gold", "heldout_reward", "accuracy"])
def test_to_keep_the_lowest_of_what_should_be_high_is_refused(figure: str) -> None:
    with pytest.raises(ConfigError, match=f"lowest {figure} .* worst") as caught:
        TrainerConfig(keep_best=figure)
    assert caught.value.where == "best_is"
    assert TrainerConfig(keep_best=figure, best_is="highest").keep_best == figure
    assert TrainerConfig(keep_best="heldout_loss").best_is == "lowest"
