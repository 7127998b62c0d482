from __future__ import annotations

import json
from pathlib import Path

import pytest

from duihua.cli.main import main
from duihua.models.bundle import save_bundle
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder
from duihua.models.model_card import ModelCard
from duihua.text.tokenizer import Tokenizer


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    tokenizer = Tokenizer.train(["你好 hello hello 你好"] * 3, 265)
    shape = DecoderConfig(vocabulary_size=265, width=32, layers=1, head_width=16, feed_forward_width=32, context=32)
    save_bundle(tmp_path / "in", Decoder(shape).initialise(1), tokenizer, ModelCard(title="A", stage="sft"))
    return tmp_path / "in"


def test_import_prints_what_is_there(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", str(bundle), "--check"]) == 0
    shown = capsys.readouterr().out
    for words in ("qwen3 (Qwen3ForCausalLM)", "32 tokens", "float32, 1 file", "byte-level BPE, 265 ids", "its own"):
        assert words in shown
    assert main(["import", str(bundle), "--output", str(tmp_path / "out"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["family"], found["left_out"], found["output"]) == ("qwen3", [], str(tmp_path / "out"))
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_export_says_what_it_wrote(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    assert main(["export", str(bundle), "--to", "huggingface", "--output", out, "--dtype", "bf16", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) | {"parameters": 0, "bytes": 0} == {
        "to": "huggingface",
        "directory": out,
        "bytes": 0,
        "files": 1,
        "parameters": 0,
        "dtype": "bfloat16",
    }
    pytest.importorskip("gguf")
    assert main(["export", str(bundle), "--to", "gguf", "--output", f"{out}.gguf", "--dtype", "q8_0"]) == 0
    assert "tensors in Q8_0" in capsys.readouterr().out
    assert Path(f"{out}.gguf").read_bytes()[:4] == b"GGUF"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["import", "IN"], "give either --output DIR or --check"),
        (["import", "IN", "--check", "--output", "OUT"], "give either --output DIR or --check"),
        (["import", "IN", "--output", "IN"], "there already, and nothing is written over"),
        (["export", "IN", "--to", "huggingface", "--output", "IN"], "there already, and nothing is written over"),
        (["export", "IN", "--to", "huggingface", "--output", "OUT", "--dtype", "q8_0"], "huggingface has no q8_0"),
        (["export", "IN", "--to", "gguf", "--output", "OUT"], "ends in .gguf"),
        (["export", "IN", "--to", "gguf", "--output", "OUT.gguf", "--clean"], "--clean: belongs to --to huggingface"),
        (["export", "IN", "--to", "huggingface", "--output", "OUT", "--shard-megabytes", "-1"], "must be at least 1"),
        (["export", "NONE", "--to", "huggingface", "--output", "OUT"], "no such directory"),
    ],
)
def test_what_cannot_be_is_one_line(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    places = {"IN": str(bundle), "OUT": str(tmp_path / "out"), "NONE": str(tmp_path / "none")}
    places["OUT.gguf"] = places["OUT"] + ".gguf"
    before = sorted(file.name for file in bundle.iterdir())
    assert main([places.get(word, word) for word in words]) == 2
    shown = capsys.readouterr().err
    assert message in shown and shown.count("\n") == 1
    assert sorted(file.name for file in bundle.iterdir()) == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in"]
