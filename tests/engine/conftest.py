"""Small models for the engine's tests: random weights large enough that logits differ clearly between tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from duihua.models.bundle import ModelCard, save_bundle
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder
from duihua.text.tokenizer import Tokenizer

TEXTS = [
    "The quick brown fox jumps over the lazy dog. How are you today? I am fine, thank you. ",
    "你好，今天天气很好。我们一起去公园散步吧！谢谢你，再见。🙂🎉",
] * 20


def random_decoder(vocabulary_size: int = 61, context: int = 64, seed: int = 0) -> Decoder:
    """A decoder of two layers with random weights everywhere (also where training would start from zero)."""
    config = DecoderConfig(
        vocabulary_size=vocabulary_size,
        width=32,
        layers=2,
        heads=4,
        key_value_heads=2,
        head_width=8,
        feed_forward_width=48,
        context=context,
    )
    network = Decoder(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim == 2:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.25)
    return network.eval()


@pytest.fixture(scope="session")
def network() -> Decoder:
    return random_decoder()


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS, 320)


@pytest.fixture(scope="session")
def talker(tokenizer: Tokenizer) -> Decoder:
    """A decoder for the tokenizer's ids."""
    return random_decoder(tokenizer.vocabulary_size, context=128, seed=1)


@pytest.fixture(scope="session")
def bundle_directory(talker: Decoder, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("run") / "sft"
    save_bundle(directory, talker, tokenizer, ModelCard(title="Tiny", stage="sft"))
    return directory


def chi_square_p_value(observed: torch.Tensor, expected: torch.Tensor) -> float:
    """Pearson's test: the probability of counts at least this far from `expected` when they are drawn from it.

    Cells where nothing is expected must be empty, or the answer is 0; cells with an expectation below 5 are pooled.
    """
    observed, expected = observed.double(), expected.double()
    if observed[expected == 0].any():
        return 0.0
    observed, expected = observed[expected > 0], expected[expected > 0]
    small = expected < 5
    if small.any():
        observed = torch.cat((observed[~small], observed[small].sum()[None]))
        expected = torch.cat((expected[~small], expected[small].sum()[None]))
    statistic = ((observed - expected) ** 2 / expected).sum()
    return float(torch.special.gammaincc(torch.tensor((len(expected) - 1) / 2, dtype=torch.float64), statistic / 2))


@pytest.fixture(scope="session")
def chi_square() -> Callable[[torch.Tensor, torch.Tensor], float]:
    return chi_square_p_value


@pytest.fixture(scope="session")
def make_decoder() -> Callable[..., Decoder]:
    return random_decoder
