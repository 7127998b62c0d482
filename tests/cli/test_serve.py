"""`duihua serve` as a person starts it: address, faults as one line, a clean end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch

from duihua.cli.main import main
from duihua.errors import BundleError, ConfigError
from duihua.models.bundle import ModelCard, save_bundle
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder
from duihua.serving.config import ServingConfig, is_loopback
from duihua.serving.models import find_sources
from duihua.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the stages that chat, one that does not, and a half-written one."""
    tokenizer = Tokenizer.train(["Hello, how are you?", "你好，谢谢你。"] * 20, 280)
    torch.manual_seed(0)
    network = Decoder(DecoderConfig(tokenizer.vocabulary_size, 16, 1, 2, 1, 8, 24, 64))
    run = tmp_path_factory.mktemp("runs") / "quickstart"
    for stage in ("ppo", "pretrain", "sft"):
        save_bundle(run / stage, network, tokenizer, ModelCard(title=stage, stage=stage))
    (run / "tokenizer").mkdir()
    reward = run / "reward"
    save_bundle(reward, network, tokenizer, ModelCard(title="reward", stage="reward"))
    config = json.loads((reward / "config.json").read_text())
    (reward / "config.json").write_text(json.dumps({**config, "architectures": ["Qwen3ForSequenceClassification"]}))
    return run


def test_a_run_means_its_chat_models_in_the_order_of_training(run_folder: Path) -> None:
    assert [source.name for source in find_sources([run_folder])] == ["base", "sft", "ppo"]
    assert [source.name for source in find_sources([run_folder / "sft", run_folder / "pretrain"])] == ["sft", "base"]


def test_bundles_of_one_name_are_told_apart(run_folder: Path) -> None:
    names = [source.name for source in find_sources([run_folder / "sft", run_folder, run_folder / "sft"])]
    assert len(set(names)) == len(names) == 5
    assert names[0] == "quickstart/sft"


def test_a_path_without_models_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such folder"):
        find_sources([tmp_path / "none"])
    with pytest.raises(BundleError, match="holds no model"):
        find_sources([tmp_path])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.9.9.9"])
def test_this_machine_needs_no_key(host: str) -> None:
    ServingConfig(host=host).check()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "127.0.0.1.example.org"])
def test_others_need_a_key(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(ConfigError, match="key"):
        ServingConfig(host=host).check()
    ServingConfig(host=host, api_key="k").check()


def test_faults_are_one_line_and_exit_with_2(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{")
    store = ["--store", str(tmp_path / "c.sqlite3"), "--port", "0"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        cases = {
            "--port": ["serve", str(run_folder), *store[:2], "--port", port],
            "--host": ["serve", str(run_folder), "--host", "203.0.113.7", "--api-key", "k", *store],
            "--api-key": ["serve", str(run_folder), "--host", "0.0.0.0"],
            "no such folder": ["serve", str(tmp_path / "none"), *store],
            "duihua serve runs/quickstart": ["serve"],
            "config.json": ["serve", str(broken), *store],
        }
        for remedy, argv in cases.items():
            assert main(argv) == 2, argv
            said = capsys.readouterr().err.strip()
            assert remedy in said, said
            assert len(said.splitlines()) == 1, said


@pytest.fixture
def started(run_folder: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "duihua.cli.main", "serve", str(run_folder), "--port", "0", "--json"]
    process = subprocess.Popen(
        [*command, "--store", str(tmp_path / "c.sqlite3")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


def test_serving_a_run_answers_and_ends_cleanly_on_a_signal(started: subprocess.Popen[str]) -> None:
    assert started.stdout is not None
    text = ""
    while not text.endswith("}\n"):
        line = started.stdout.readline()
        assert line, started.communicate()[1]
        text += line
    said = json.loads(text)
    assert said["models"] == ["base", "sft", "ppo"]
    assert said["default_model"] == "ppo"
    assert said["address"].startswith("http://127.0.0.1:")
    assert httpx.get(f"{said['address']}/health").status_code == 200
    body = {"model": "ppo", "messages": [{"role": "user", "content": "你好"}], "max_tokens": 3}
    answer = httpx.post(f"{said['api']}/chat/completions", json=body)
    assert answer.json()["usage"]["completion_tokens"] >= 1
    conversation = httpx.post(f"{said['address']}/api/conversations", json={}).json()["id"]
    question = httpx.post(f"{said['address']}/api/conversations/{conversation}/messages", json={"content": "你好"})
    reply = {"parent_id": question.json()["id"], "model": "base", "settings": {"max_tokens": 3}}
    events = httpx.post(f"{said['address']}/api/conversations/{conversation}/replies", json=reply).text
    assert '"type":"done"' in events
    assert started.poll() is None
    started.send_signal(signal.SIGTERM)
    out, err = started.communicate(timeout=30)
    assert started.returncode == 0, err
    assert out == ""
    assert "Traceback" not in err
