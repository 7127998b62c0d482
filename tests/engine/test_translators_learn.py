"""Both networks learn to write six random symbols backwards, and beam search then does so; without attention a recurrent
network of the same size, given the same training, does not: its one state is too small a memory. Where the words of two
languages stand in opposite orders, as in *zone économique européenne* and *European Economic Area*, the attention crosses."""

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


def train(network: TranslatorNetwork, steps: int, rate: float) -> None:
    """Teacher forcing on random sequences."""
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


def right(network: TranslatorNetwork) -> int:
    """Of 100 new sequences, how many are reversed without a fault."""
    source, target = pairs(100, torch.Generator().manual_seed(1))
    found = beam_search(network, source.tolist())
    return sum(list(best[0].ids) == row[1:-1] for best, row in zip(found, target.tolist(), strict=True))


def crossed(network: TranslatorNetwork) -> float:
    """Share of written symbols that look most at the place that stands as far from the other end of the source."""
    source, target = pairs(50, torch.Generator().manual_seed(2))
    with torch.inference_mode():
        weights = network.eval().attention(source, torch.ones_like(source), target[:, :-1])[-1].mean(dim=1)
    most = weights[:, :6].argmax(dim=-1)
    return float((most == torch.arange(5, -1, -1)).float().mean())


@pytest.fixture(scope="module")
def trained() -> dict[str, TranslatorNetwork]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    networks: dict[str, TranslatorNetwork] = {
        "transformer": transformer(),
        "additive": recurrent("additive"),
        "none": recurrent("none"),
    }
    for name, network in networks.items():
        train(network, *((250, 5e-3) if name == "transformer" else (120, 1e-2)))
    torch.set_num_threads(threads)
    return networks


@pytest.mark.parametrize(("name", "least", "most"), [("transformer", 90, 100), ("additive", 90, 100), ("none", 0, 40)])
def test_attention_learns_to_write_backwards(
    trained: dict[str, TranslatorNetwork], name: str, least: int, most: int
) -> None:
    assert least <= right(trained[name]) <= most


@pytest.mark.parametrize("name", ["transformer", "additive"])
def test_attention_crosses_where_the_order_of_the_words_is_swapped(
    trained: dict[str, TranslatorNetwork], name: str
) -> None:
    assert crossed(trained[name]) > 0.8
    untrained = transformer() if name == "transformer" else recurrent("additive")
    assert crossed(untrained) < 0.4  # the control: by chance one place in seven
