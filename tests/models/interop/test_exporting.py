"""`duihua export --to huggingface`: transformers reads the directory, in every number format, in one file or several."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from duihua.errors import BundleError, DuihuaError
from duihua.models.bundle import load_bundle, save_bundle
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder
from duihua.models.heads import ScoredDecoder
from duihua.models.interop.exporting import export_directory
from duihua.models.model_card import ModelCard
from duihua.text.tokenizer import Tokenizer

IDS = torch.arange(40)[None] % 265


def save(directory: Path, *, reward: bool = False, **fields: Any) -> Path:
    tokenizer = Tokenizer.train(["你好 hello hello 你好"] * 3, 265)
    shape: dict[str, Any] = {"width": 32, "layers": 2, "head_width": 16, "feed_forward_width": 48, "context": 64}
    decoder = Decoder(DecoderConfig(vocabulary_size=265, **shape | fields)).initialise(1)
    with torch.no_grad():
        decoder.head.weight.normal_(std=0.5, generator=torch.Generator().manual_seed(1))
    network = ScoredDecoder(decoder).initialise_score(2) if reward else decoder
    save_bundle(directory, network, tokenizer, ModelCard("A", "sft", terms=[{"name": "x", "licence": "CC0"}]))
    (directory / "metrics.jsonl").write_text("{}\n")
    (directory / "checkpoints").mkdir()
    (directory / "LICENSE").write_text("terms")
    return directory


def test_transformers_computes_the_same_from_several_files(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    bundle = load_bundle(save(tmp_path / "in"))
    written = export_directory(bundle, tmp_path / "out", shard_bytes=40_000)
    names = sorted(file.name for file in (tmp_path / "out").glob("*.safetensors"))
    assert written.files == len(names) > 2
    assert names[0] == f"model-00001-of-{len(names):05d}.safetensors"
    assert all((tmp_path / "out" / name).stat().st_size < 44_000 for name in names)
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    with torch.no_grad():
        assert float((theirs(IDS).logits - bundle.policy(IDS)).abs().max()) < 1e-4
    again = load_bundle(tmp_path / "out")
    ours = bundle.network.state_dict()
    assert all(torch.equal(weight, ours[name]) for name, weight in again.network.state_dict().items())
    assert again.terms == bundle.terms


def test_only_what_other_programs_read_is_copied_and_clean_drops_our_key(tmp_path: Path) -> None:
    bundle = load_bundle(save(tmp_path / "in"))
    export_directory(bundle, tmp_path / "out")
    export_directory(bundle, tmp_path / "clean", clean=True)
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert not names & {"metrics.jsonl", "checkpoints"}
    assert {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "chat_template.jinja",
        "LICENSE",
        "README.md",
    } <= names
    assert "duihua" in json.loads((tmp_path / "out" / "config.json").read_text())
    assert "duihua" not in json.loads((tmp_path / "clean" / "config.json").read_text())
    assert "CC0" in (tmp_path / "clean" / "README.md").read_text()
    assert load_bundle(tmp_path / "clean").kind == "policy"


@pytest.mark.parametrize(("dtype", "stored"), [("f16", torch.float16), ("bf16", torch.bfloat16), ("", torch.float32)])
def test_the_number_format_is_that_asked_for(tmp_path: Path, dtype: str, stored: torch.dtype) -> None:
    bundle = load_bundle(save(tmp_path / "in"))
    written = export_directory(bundle, tmp_path / "out", dtype)
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {stored}
    assert written.bytes == sum(weight.numel() * weight.element_size() for weight in weights.values())
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == written.dtype == str(stored).removeprefix("torch.")


def test_a_reward_bundle_goes_to_a_directory(tmp_path: Path) -> None:
    export_directory(load_bundle(save(tmp_path / "in", reward=True)), tmp_path / "out")
    assert load_bundle(tmp_path / "out").kind == "reward"


def test_the_fast_profile_is_refused_with_the_reason(tmp_path: Path) -> None:
    bundle = load_bundle(save(tmp_path / "in", activation="relu_squared", gated=False, logit_soft_cap=15.0))
    with pytest.raises(BundleError, match=r"no class of transformers.*qwen3 preset"):
        export_directory(bundle, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over_and_no_rest_is_left(tmp_path: Path) -> None:
    bundle = load_bundle(save(tmp_path / "in"))
    (tmp_path / "out").mkdir()
    export_directory(bundle, tmp_path / "out")  # an empty folder is fine
    before = (tmp_path / "out" / "config.json").read_bytes()
    with pytest.raises(DuihuaError, match="there already"):
        export_directory(bundle, tmp_path / "out", "f16")
    assert (tmp_path / "out" / "config.json").read_bytes() == before
    (tmp_path / "file").write_text("")
    with pytest.raises(DuihuaError, match="cannot write"):
        export_directory(bundle, tmp_path / "file" / "out")
    assert not list(tmp_path.glob(".*"))
