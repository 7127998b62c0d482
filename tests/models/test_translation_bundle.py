from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from duihua.errors import BundleError
from duihua.models.model_card import ModelCard
from duihua.models.recurrent_translator import RecurrentTranslator
from duihua.models.recurrent_translator_config import RecurrentTranslatorConfig
from duihua.models.transformer import Transformer
from duihua.models.transformer_config import TransformerConfig
from duihua.models.translation_bundle import (
    TranslatorNetwork,
    is_translator,
    load_translator,
    save_translator,
)
from duihua.models.translator import pad_rows
from duihua.text.tokenizer import Tokenizer

TERMS = [{"name": "pairs", "language": "fr", "licence": "CC BY 2.0", "homepage": "https://example.org", "note": ""}]
CARD = ModelCard(title="A translator", stage="translate", terms=TERMS, metrics={"bleu": 1.5})


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["je suis étudiant, I am a student"] * 3, 265)


def transformer(tokenizer: Tokenizer, tied: str = "all") -> Transformer:
    shape = {"width": 16, "encoder_layers": 1, "decoder_layers": 2, "heads": 2, "feed_forward_width": 24}
    config = TransformerConfig(tokenizer.vocabulary_size, tied_embeddings=tied, most_tokens=20, **shape)  # type: ignore[arg-type]
    return Transformer(config).initialise(1).eval()


def recurrent(tokenizer: Tokenizer) -> RecurrentTranslator:
    config = RecurrentTranslatorConfig(tokenizer.vocabulary_size, width=12, hidden_width=10, cell="lstm", layers=2)
    return RecurrentTranslator(config).initialise(1).eval()


@pytest.fixture
def bundle(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    save_translator(tmp_path / "b", transformer(tokenizer), tokenizer, ("fr", "en"), CARD)
    return tmp_path / "b"


MAKERS: list[Callable[[Tokenizer], TranslatorNetwork]] = [
    transformer,
    lambda tokenizer: transformer(tokenizer, "none"),
    recurrent,
]


@pytest.mark.parametrize("make", MAKERS)
def test_what_is_saved_is_loaded(
    tokenizer: Tokenizer, tmp_path: Path, make: Callable[[Tokenizer], TranslatorNetwork]
) -> None:
    network = make(tokenizer)
    save_translator(tmp_path / "b", network, tokenizer, ("fr", "en"), CARD)
    before = torch.random.get_rng_state()
    found = load_translator(tmp_path / "b")
    assert torch.equal(before, torch.random.get_rng_state())
    assert type(found.network) is type(network) and found.config == network.config and not found.network.training
    assert found.languages == ("fr", "en") and found.terms == TERMS
    assert found.tokenizer.fingerprint == tokenizer.fingerprint
    ours, theirs = network.state_dict(), found.network.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    count = [sum(weight.numel() for weight in each.parameters()) for each in (network, found.network)]
    assert count[0] == count[1]
    source, mask = pad_rows([[5, 6, 2], [7, 2]], 3)
    target = torch.tensor([[1, 9, 10], [1, 11, 12]])
    assert torch.equal(network(source, mask, target), found.network(source, mask, target))
    stored = load_file(tmp_path / "b" / "model.safetensors")
    assert ("head.weight" in stored) == (network.config.tied_embeddings == "none")


def test_the_folder_says_what_it_is(bundle: Path, tokenizer: Tokenizer) -> None:
    names = {file.name for file in bundle.iterdir()}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", "README.md"}
    config = json.loads((bundle / "config.json").read_text())
    assert config["model_type"] == "duihua-transformer" and config["languages"] == ["fr", "en"]
    card = (bundle / "README.md").read_text()
    assert "pipeline_tag: translation" in card and "library_name: duihua" in card and "CC BY 2.0" in card
    assert is_translator(bundle) and not is_translator(bundle.parent)
    mode = (bundle / "config.json").stat().st_mode & 0o777
    assert (bundle / "model.safetensors").stat().st_mode & 0o777 == mode
    (bundle / "notes.txt").write_text("kept")
    save_translator(bundle, recurrent(tokenizer), tokenizer, ("zh", "en"), CARD)
    assert load_translator(bundle).languages == ("zh", "en") and (bundle / "notes.txt").read_text() == "kept"
    assert not [each for each in (*bundle.iterdir(), *bundle.parent.iterdir()) if each.name.endswith(".part")]


def edit(bundle: Path, change: Callable[[dict[str, object]], object]) -> None:
    config = json.loads((bundle / "config.json").read_text())
    change(config)
    (bundle / "config.json").write_text(json.dumps(config))


def edit_weights(bundle: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(bundle / "model.safetensors")
    change(weights)
    save_file(weights, bundle / "model.safetensors")


BREAKS: list[tuple[Callable[[Path], object], str]] = [
    (lambda b: (b / "config.json").unlink(), "has no config.json"),
    (lambda b: (b / "config.json").write_text("{"), "config.json"),
    (lambda b: edit(b, lambda c: c.update(model_type="qwen3")), "'qwen3' is no translator"),
    (lambda b: edit(b, lambda c: c.update(languages="fr")), "languages should be two names"),
    (lambda b: edit(b, lambda c: c.pop("network")), "has no settings of a network"),
    (lambda b: edit(b, lambda c: c["network"].update(heads=3)), "cannot share a width of 16"),  # type: ignore[attr-defined]
    (lambda b: edit(b, lambda c: c["network"].update(haeds=3)), "unknown key 'haeds'"),  # type: ignore[attr-defined]
    (lambda b: edit(b, lambda c: c["network"].update(vocabulary_size=64)), "265 ids, the embedding 64"),  # type: ignore[attr-defined]
    (lambda b: edit(b, lambda c: c["network"].update(width=32)), "shape"),  # type: ignore[attr-defined]
    (lambda b: edit(b, lambda c: c["duihua"].update(format=9)), "format 9"),  # type: ignore[attr-defined]
    (lambda b: (b / "model.safetensors").unlink(), "has no model.safetensors"),
    (lambda b: (b / "model.safetensors").write_bytes(b"12345678"), "broken safetensors"),
    (lambda b: edit_weights(b, lambda w: w.pop("encoder.0.attention_norm.weight")), "1 tensors are missing: encoder.0"),
    (lambda b: edit_weights(b, lambda w: w.update(more=torch.zeros(1))), "1 have no place: more"),
    (
        lambda b: edit_weights(b, lambda w: w.update({"decoder.1.attention_norm.bias": torch.zeros(16).int()})),
        "type I32",
    ),
    (lambda b: (b / "tokenizer.json").unlink(), "no tokenizer"),
]


@pytest.mark.parametrize(("damage", "problem"), BREAKS)
def test_a_broken_folder_is_refused_with_the_reason(
    bundle: Path, damage: Callable[[Path], object], problem: str
) -> None:
    load_translator(bundle)
    damage(bundle)
    with pytest.raises(BundleError, match=problem) as caught:
        load_translator(bundle)
    assert str(bundle) in str(caught.value)


def test_a_folder_that_cannot_be_written_is_said_so(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BundleError, match="cannot write"):
        save_translator(tmp_path / "file" / "b", transformer(tokenizer), tokenizer, ("fr", "en"), CARD)


def test_a_save_that_dies_leaves_the_old_model(
    bundle: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = load_translator(bundle).network.state_dict()

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Tokenizer, "save", dies)
        with pytest.raises(KeyboardInterrupt):
            save_translator(bundle, transformer(tokenizer, "none"), tokenizer, ("fr", "en"), CARD)
    found = load_translator(bundle).network.state_dict()
    assert all(torch.equal(old[name], found[name]) for name in old)


def test_remains_of_a_killed_save_are_cleared_away(tokenizer: Tokenizer, tmp_path: Path) -> None:
    remains = tmp_path / f".b.{os.getpid() + 1}.part"
    remains.mkdir()
    save_translator(tmp_path / "b", recurrent(tokenizer), tokenizer, ("fr", "en"), CARD)
    assert not remains.exists()
    shutil.rmtree(tmp_path / "b")
