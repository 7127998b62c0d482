"""Both networks learn to write six random symbols backwards, and beam search then does so; without attention a recurrent
network of the same size, given the same training, does not: its one state is too small a memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from duihua.engine.beam_search import beam_search
from duihua.models.recurrent_translator import RecurrentTranslator
from duihua.models.recurrent_translator_config import RecurrentTranslatorConfig
from duihua.models.transformer import Transformer
from duihua.models.transformer_config import TransformerConfig
from duihua.models.translation_bundle import TranslatorNetwork


def recurrent(attention: str) -> RecurrentTranslator:
    config = RecurrentTranslatorConfig(12, width=32, hidden_width=48, dropout=0.0, attention=attention)  # type: ignore[arg-type]
    return RecurrentTranslator(config).initialise(0)


def transformer() -> Transformer:
    shape = {"width": 32, "encoder_layers": 1, "decoder_layers": 1, "heads": 4, "feed_forward_width": 64}
    return Transformer(TransformerConfig(12, dropout=0.0, **shape)).initialise(0)  # type: ignore[arg-type]


def pairs(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    symbols = torch.randint(4, 12, (count, 6), generator=generator)
    start, end = torch.full((count, 1), 1), torch.full((count, 1), 2)
    return torch.cat((symbols, end), dim=1), torch.cat((start, symbols.flip(1), end), dim=1)


def right_after_training(network: TranslatorNetwork, steps: int, rate: float) -> int:
    """Of 100 new sequences, how many are reversed without a fault."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(network.train().parameters(), lr=rate, betas=(0.9, 0.98))
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 30)
        source, target = pairs(64, generator)
        hidden = network.hidden(source, torch.ones_like(source), target[:, :-1])
        total, losses = network.next_token_losses(hidden, target[:, 1:], torch.ones(64, 7))
        optimizer.zero_grad()
        (total / losses.numel()).backward()
        optimizer.step()
    source, target = pairs(100, generator)
    found = beam_search(network, source.tolist())
    return sum(list(best[0].ids) == row[1:-1] for best, row in zip(found, target.tolist(), strict=True))


@pytest.mark.parametrize(
    ("network", "steps", "rate", "least", "most"),
    [
        (transformer(), 250, 5e-3, 90, 100),
        (recurrent("additive"), 120, 1e-2, 90, 100),
        (recurrent("none"), 120, 1e-2, 0, 40),
    ],
    ids=["transformer", "additive", "none"],
)
def test_attention_learns_to_write_backwards(
    network: TranslatorNetwork, steps: int, rate: float, least: int, most: int
) -> None:
    assert least <= right_after_training(network, steps, rate) <= most
