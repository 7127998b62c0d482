"""`duihua merge`: an adapter becomes part of a bundle, or one line says why not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from duihua.cli.main import main
from duihua.models.adapters import save_adapter
from duihua.models.bundle import ModelCard, load_bundle, save_bundle
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder
from duihua.nn.lora import add_lora, lora_parameters
from duihua.nn.lora_config import LoraConfig
from duihua.text.tokenizer import Tokenizer

IDS = torch.arange(20)[None]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    tokenizer = Tokenizer.train(["say something"] * 4, 264)
    terms = [{"name": "old", "licence": "MIT"}]
    for name, width in (("base", 16), ("wider", 32)):
        shape = DecoderConfig(264, width=width, layers=1, heads=2, key_value_heads=1, head_width=8, context=32)
        network = Decoder(shape).initialise(0)
        save_bundle(tmp_path / name, network, tokenizer, ModelCard(title="base", stage="pretrain", terms=terms))
    return tmp_path / "base"


@pytest.fixture
def adapter(base: Path) -> Path:
    network = load_bundle(base).policy
    config = LoraConfig(rank=2)
    add_lora(network, config, seed=0)
    with torch.no_grad():
        for weight in lora_parameters(network).values():
            weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    directory = base.parent / "adapter"
    save_adapter(directory, network, config, base=base, stage="sft", terms=[{"name": "new", "licence": "CC0"}])
    torch.save(network(IDS).detach(), base.parent / "expected.pt")
    return directory


def test_the_merged_bundle_computes_what_base_and_adapter_did(
    base: Path, adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = base.parent / "merged"
    assert main(["merge", str(base), "--adapter", str(adapter), "--output", str(output), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["adapted_matrices"] == 7
    assert said["stage"] == "sft"
    merged = load_bundle(output)
    expected = torch.load(base.parent / "expected.pt", weights_only=True)
    assert torch.allclose(merged.policy(IDS), expected, atol=1e-5)
    assert not torch.allclose(load_bundle(base).policy(IDS), expected, atol=1e-2)
    assert [terms["name"] for terms in merged.terms] == ["new", "old"], "it inherits the terms of both"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["base", "--adapter", "nowhere", "--output", "out"], "nowhere: no such directory"),
        (["base", "--adapter", "base", "--output", "out"], "has no adapter_config.json"),
        (["wider", "--adapter", "adapter", "--output", "out"], "other weights than this model's"),
        (["base", "--adapter", "adapter", "--output", "wider"], "is there already"),
        (["nowhere", "--adapter", "adapter", "--output", "out"], "nowhere"),
    ],
)
def test_what_cannot_be_merged_is_said_in_one_line(
    base: Path, adapter: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    folder = base.parent
    arguments = [word if word.startswith("--") else str(folder / word) for word in words]
    assert main(["merge", *arguments]) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("\n") == 1
    assert not (folder / "out").exists()
