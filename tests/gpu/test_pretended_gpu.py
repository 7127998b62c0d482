"""Every stage where all tensors must be on the GPU: a pretended one, since nothing here may need a real one (pretended.py)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
MIXED = "tensors on cuda:0 and on cpu"
Call = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler here, which the pretended GPU needs"),
    pytest.mark.skipif(sys.platform != "linux", reason="the stand-in is built as Linux builds a library"),
    pytest.mark.skipif(torch.version.cuda is not None, reason="this torch knows a real GPU"),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made, home = tmp_path_factory.mktemp("library") / "pretended.so", Path(torch.__file__).parent
    places = [f"-I{home / 'include'}", f"-L{home / 'lib'}", f"-Wl,-rpath,{home / 'lib'}"]
    source = ["g++", "-shared", "-fPIC", "-std=c++20", str(HERE / "pretended.cpp")]
    subprocess.run([*source, *places, "-lc10", "-ltorch_cpu", "-o", str(made)], check=True)
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gpu")


@pytest.fixture(scope="module")
def duihua(library: Path, folder: Path) -> Call:
    """Runs `duihua` where cuda is pretended."""

    def call(*arguments: str, forget: bool = False) -> subprocess.CompletedProcess[str]:
        options = [str(library), *(["--forget"] if forget else [])]
        command = [sys.executable, str(HERE / "on_pretended.py"), *options, "--", *arguments]
        here = {"OMP_NUM_THREADS": "1", "DUIHUA_HOME": str(folder / "home"), "DUIHUA_PRODUCTS": "torch"}
        return subprocess.run(
            command, cwd=folder, env={**os.environ, **here}, capture_output=True, text=True, check=False, timeout=300
        )

    return call


@pytest.fixture(scope="module")
def road(duihua: Call, folder: Path) -> Path:
    """The whole road of road.yaml."""
    ran = duihua("run", str(HERE / "road.yaml"), "--device", "cuda", "--output", "road")
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-4000:]
    return folder / "road"


@pytest.mark.slow
def test_every_stage_keeps_its_tensors_together(road: Path) -> None:
    run = json.loads((road / "run.json").read_text(encoding="utf-8"))
    assert "cuda" in json.dumps(run)
    for stage in (
        "pretrain",
        "sft",
        "judge",
        "reward",
        "rejection_sampling",
        "dpo",
        "grpo",
        "ppo",
        "compare",
        "evaluate",
    ):
        assert (road / stage / "result.json").is_file(), stage


@pytest.mark.slow
def test_a_tensor_left_behind_is_noticed(road: Path, duihua: Call) -> None:
    """The negative control: token ids that are never sent to the GPU."""
    ran = duihua(*fine_tuning(road, "forgotten", "cuda"), forget=True)
    assert ran.returncode != 0 and MIXED in ran.stderr


@pytest.mark.slow
def test_the_losses_are_the_processors(road: Path, duihua: Call, folder: Path) -> None:
    """In fp32 and with AdamW (Muon multiplies in bf16 on a GPU); bf16 tells the two apart."""
    losses = {}
    for name, device, precision in (("cpu", "cpu", "fp32"), ("gpu", "cuda", "fp32"), ("short", "cuda", "bf16")):
        ran = duihua(*fine_tuning(road, name, device), "--set", f"trainer.precision={precision}")
        assert ran.returncode == 0, ran.stderr[-4000:]
        lines = (folder / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        losses[name] = [row["loss"] for row in map(json.loads, lines) if "loss" in row]
    assert losses["gpu"] == pytest.approx(losses["cpu"], abs=1e-5)
    assert losses["short"] != pytest.approx(losses["cpu"], abs=1e-5)


def fine_tuning(road: Path, output: str, device: str) -> list[str]:
    """A few steps of SFT on the road's base model."""
    settings = [
        "sources=[{name: tiny-chat}]",
        "optimizer.kind=adamw",
        "optimizer.learning_rate=0.003",
        "steps=4",
        "batch_tokens=512",
        "heldout_conversations=4",
        "samples=0",
        "trainer.log_every=1",
    ]
    named = ["--input", f"policy={road / 'pretrain'}", "--output", output, "--device", device]
    return ["sft", *named, *(word for setting in settings for word in ("--set", setting))]
