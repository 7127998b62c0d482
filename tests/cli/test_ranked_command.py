"""torchrun with the command line: two processes, stopped by a signal, ended by one, with the curve of one alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from duihua.cli.main import main, refuse_ranks
from duihua.errors import ConfigError
from duihua.text.tokenizer import Tokenizer

STEPS = 40
TEXTS = [f"the {['cat', 'dog', 'bird'][i % 3]} number {i} sings and runs over the hill." for i in range(300)]


def command(folder: Path, output: str) -> list[str]:
    shape = ["shape.layers=1", "shape.width=16", "shape.heads=1", "shape.key_value_heads=1", "shape.head_width=16"]
    settings = [f"steps={STEPS}", "rows=3", "length=16", "micro_batches=1", "trainer.log_every=1", *shape]
    sources = json.dumps([{"path": str(folder / "text.jsonl"), "kind": "text", "language": "en"}])
    words = [
        "pretrain",
        "--output",
        str(folder / output),
        "--input",
        f"tokenizer={folder / 'tokenizer'}",
        "--threads",
        "1",
    ]
    return [
        *words,
        "--data",
        str(folder / "data"),
        *(w for s in [f"sources={sources}", *settings] for w in ("--set", s)),
    ]


def losses(folder: Path) -> list[float]:
    path = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line["loss"] for line in lines if "learning_rate" in line]


def test_two_ranks_are_stopped_by_a_signal_and_one_goes_on(tmp_path: Path) -> None:
    (tmp_path / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    Tokenizer.train(TEXTS, 290).save(tmp_path / "tokenizer")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "duihua"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*launcher, *command(tmp_path, "ranks")],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while process.poll() is None and len(losses(tmp_path / "ranks")) < 3:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        said, faults = process.communicate(timeout=300)
    finally:
        process.kill()
    done = len(losses(tmp_path / "ranks"))
    assert 3 <= done < STEPS, faults[-2000:]
    assert said.count("pretrain: 2 ranks") == 1, "one rank speaks"
    assert "Stopped; nothing is lost" in said and "torchrun --nproc-per-node 2 -m duihua pretrain" in said
    assert [path.name for path in (tmp_path / "ranks" / "checkpoints").iterdir()][-1:] == [f"step-{done:08d}"]
    assert main(command(tmp_path, "ranks")) == 0
    assert main(command(tmp_path, "alone")) == 0
    both, alone = losses(tmp_path / "ranks"), losses(tmp_path / "alone")
    assert len(both) == len(alone) == STEPS
    assert both == pytest.approx(alone, rel=1e-5)


def test_what_one_process_does_is_refused_on_several(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_ranks("serve")
    told = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    refuse_ranks("sft")
    with pytest.raises(ConfigError, match="cannot be spread over 2 ranks"):
        refuse_ranks("serve")
