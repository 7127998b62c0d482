"""A tiny decoder bundle with weights that are far from uniform, so that a wrong window or a wrong token shows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from duihua.evaluation.language_model import DecoderModel
from duihua.models.bundle import ModelCard, load_bundle, save_bundle
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder
from duihua.text.tokenizer import Tokenizer

TEXTS = [
    "The cat sat on the mat and looked at the dog.",
    "A dog ran over the hill, and the cat ran after the dog.",
    "我爱你，你也爱我。今天天气很好，我们去公园走走。",
    "Water flows down the hill; the sun shines on the water.",
]
CONTEXT = 24


def make_bundle(directory: Path, seed: int = 0, context: int = CONTEXT) -> Path:
    """Write a bundle with random weights of some size."""
    tokenizer = Tokenizer.train(TEXTS * 4, 320)
    shape = DecoderConfig(320, width=32, layers=2, heads=4, key_value_heads=2, head_width=8, context=context)
    network = Decoder(shape)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.dim() > 1:
                weight.copy_(torch.randn(weight.shape, generator=generator) * (1.0 if "embedding" in name else 0.3))
    save_bundle(directory, network, tokenizer, ModelCard(title="tiny", stage="pretrain"))
    return directory


@pytest.fixture(scope="session")
def bundle_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def other_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("models") / "other", seed=1)


@pytest.fixture(scope="session")
def decoder(bundle_directory: Path) -> DecoderModel:
    return DecoderModel(load_bundle(bundle_directory))
