"""Tiny models that the pictures look into."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from duihua.engine.translation_model import TranslationModel, model_inputs
from duihua.models.bundle import save_bundle
from duihua.models.decoder import Decoder
from duihua.models.model_card import ModelCard
from duihua.models.presets import preset
from duihua.models.recurrent import RecurrentLM
from duihua.models.recurrent_bundle import save_recurrent
from duihua.models.recurrent_config import RecurrentConfig
from duihua.models.transformer import Transformer
from duihua.models.transformer_config import TransformerConfig
from duihua.report.inside.subject import Subject
from duihua.text.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `sft` (a decoder with metrics), `gpt2`, `translator` and `lstm`, all with random weights."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = Tokenizer.train(["我爱你，你也爱我。 I love you, and you love me."] * 40, 280)
    size = tokenizer.vocabulary_size
    for name, shape in (("sft", "qwen3"), ("gpt2", "gpt2")):
        config = preset(
            shape, vocabulary_size=size, width=24, layers=2, heads=2, key_value_heads=1 if shape == "qwen3" else 2,
            head_width=12, feed_forward_width=32, context=64,
        )  # fmt: skip
        decoder, generator = Decoder(config), torch.Generator().manual_seed(4)
        with torch.no_grad():
            for weight in decoder.parameters():
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.4 + (weight.dim() == 1))
        save_bundle(folder / name, decoder, tokenizer, ModelCard(title=name, stage=name))
    rows = [f'{{"step": {step}, "loss": {5 / step}, "heldout_loss": {6 / step}}}' for step in range(1, 50)]
    (folder / "sft" / "metrics.jsonl").write_text("\n".join(rows), encoding="utf-8")
    network = Transformer(
        TransformerConfig(
            vocabulary_size=size,
            width=16,
            heads=2,
            feed_forward_width=16,
            encoder_layers=1,
            decoder_layers=2,
            most_tokens=80,
        )
    ).initialise(0)
    directions = [("en", "fr")]
    translator = TranslationModel(network, model_inputs(tokenizer, directions), directions)
    translator.save(folder / "translator", ModelCard(title="translator", stage="translate"))
    lstm = RecurrentLM(RecurrentConfig(vocabulary_size=size, width=12)).initialise(0)
    save_recurrent(folder / "lstm", lstm, tokenizer, ModelCard(title="lstm", stage="recurrent"))
    return folder


@pytest.fixture
def subject(models: Path) -> Subject:
    """A subject with everything but measurements."""
    return Subject(
        model=models / "sft",
        translator=models / "translator",
        recurrent=models / "lstm",
        metrics={"sft": models / "sft" / "metrics.jsonl"},
        target="I love you",
    )
