"""The layer table adds up, and its work is what torch counts on a real pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from duihua.errors import GenerationError
from duihua.models.classifier import Classifier
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder, parameter_count
from duihua.models.flops import count_flops, count_generation
from duihua.models.heads import ScoredDecoder
from duihua.models.imagined import build_imagined
from duihua.models.presets import preset
from duihua.models.trace import Layer, collapse, trace
from duihua.nn.feed_forward import FeedForward
from duihua.nn.lora import add_lora
from duihua.nn.lora_config import LoraConfig

SIZE: dict[str, Any] = {
    "vocabulary_size": 40,
    "width": 24,
    "layers": 4,
    "heads": 4,
    "head_width": 8,
    "feed_forward_width": 36,
    "context": 32,
}
FAMILIES = {"gpt1": 4, "gpt2": 4, "llama": 2, "qwen3": 2, "fast": 2}  # key-value heads


def small(name: str, **changes: Any) -> DecoderConfig:
    return preset(name, **(SIZE | {"key_value_heads": FAMILIES[name]} | changes))


def total(layers: list[Layer], key: str) -> int:
    return sum(getattr(layer, key) * layer.copies for layer in layers)


def by_name(layers: list[Layer]) -> dict[str, Layer]:
    return {layer.name: layer for layer in layers}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", FAMILIES)
def test_parameters_add_up_to_the_last_one_in_every_family(name: str, tied: bool) -> None:
    network = Decoder(small(name, tied_embeddings=tied))
    layers = trace(network, 2, 9)
    assert total(layers, "parameters") == total(collapse(layers), "parameters") == parameter_count(network)
    assert by_name(layers)["head"].tied == tied
    assert by_name(layers)["head"].parameters == (0 if tied else 40 * 24)


def test_shapes_follow_the_pass() -> None:
    layers = trace(Decoder(small("qwen3")), 3, 7)
    found = by_name(layers)
    assert (found["embedding"].input, found["embedding"].output) == ((3, 7), (3, 7, 24))
    assert found["blocks.2.attention.key"].output == (3, 7, 16)
    assert found["blocks.2.attention.query_norm"].input == (3, 7, 4, 8)
    assert (found["blocks.0.feed_forward.down"].input, found["head"].output) == ((3, 7, 36), (3, 7, 40))
    order = [layer.name for layer in layers]
    assert order[:3] == ["", "embedding", "blocks.0"] and order[-2:] == ["final_norm", "head"]
    assert order.index("blocks.1.attention") < order.index("blocks.1.attention.query")
    # norms behind the addition are called behind it
    order = [layer.name for layer in trace(Decoder(small("gpt1")), 1, 4)]
    assert order.index("blocks.0.attention_norm") > order.index("blocks.0.attention.output")
    assert order[2] == "position_embedding" and by_name(trace(Decoder(small("gpt1")), 1, 4))[order[2]].input is None


def test_blocks_that_are_alike_are_shown_once_and_others_are_not() -> None:
    layers = trace(Decoder(small("llama")), 1, 5)
    shown = collapse(layers)
    assert {layer.members for layer in shown if layer.name.startswith("blocks.")} == {(0, 1, 2, 3)}
    assert total(shown, "flops") == total(layers, "flops")
    fast = {layer.name: layer.members for layer in collapse(trace(Decoder(small("fast")), 1, 5))}
    assert (fast["blocks.0"], fast["blocks.1"]) == ((0, 2), (1, 3)) and "blocks.2" not in fast
    other = Decoder(small("llama"))
    other.blocks[2].feed_forward = FeedForward(24, 40)
    kept = {layer.name: layer.members for layer in collapse(trace(other, 1, 5))}
    assert (kept["blocks.0"], kept["blocks.2"]) == ((0, 1, 3), (2,))


def counted(network: nn.Module, batch: int, time: int, backward: bool = False) -> int:
    """What torch's own counter finds on a real pass; its attention computes the whole square."""
    ids = torch.arange(batch * time).view(batch, time) % 40
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        found = network(ids)
        if backward:
            nn.functional.cross_entropy(found.flatten(0, 1), ids.flatten()).backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("name", FAMILIES)
def test_the_work_of_forward_and_training_is_what_torch_counts(name: str) -> None:
    network = Decoder(small(name)).initialise(0).eval()
    batch, time = 3, 11
    flops = count_flops(network, trace(network, batch, time), batch, time)
    unmasked = flops.blocks + flops.head + flops.attention_unmasked
    tokens = batch * time
    forward = counted(network, batch, time)
    assert tokens * unmasked == pytest.approx(forward, rel=1e-12)
    assert counted(network, batch, time, backward=True) == 3 * forward
    assert flops.attention == pytest.approx(flops.attention_unmasked * (time + 1) / (2 * time))
    assert flops.forward == pytest.approx(flops.blocks + flops.head + flops.attention)
    # controls: without the head, and with another length, the numbers differ
    assert tokens * (unmasked - flops.head) != pytest.approx(forward, rel=1e-3)
    assert tokens * count_flops(network, trace(network, 3, 12), 3, 12).attention_unmasked != pytest.approx(
        tokens * flops.attention_unmasked, rel=1e-3
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_checkpointed_training_computes_the_blocks_once_more(name: str) -> None:
    network = Decoder(small(name)).initialise(0).train()
    network.gradient_checkpointing = True
    flops = count_flops(network, trace(network, 2, 8), 2, 8)
    found = counted(network, 2, 8, backward=True) / 16
    masked = 4 * (flops.attention_unmasked - flops.attention)  # torch counts the whole square
    assert found == pytest.approx(flops.training_checkpointed + masked)
    assert found != pytest.approx(flops.training + masked, rel=1e-2)
    down = (
        0 if network.config.residual_dropout else 4 * 2 * 36 * 24
    )  # the last product of a block, where it is not needed
    assert flops.training_checkpointed == flops.training + flops.blocks + flops.attention - down


def test_work_by_hand() -> None:
    config = DecoderConfig(
        vocabulary_size=10, width=4, layers=3, heads=2, key_value_heads=1, head_width=2, feed_forward_width=5, context=7
    )
    network = Decoder(config)
    flops = count_flops(network, trace(network, 1, 5), 1, 5)
    # query 4x4, key and value 4x2, output 4x4, gate, up and down 4x5; head 4x10; 15 of 25 pairs over 5 tokens
    assert flops.blocks == 3 * 2 * (16 + 8 + 8 + 16 + 60)
    assert flops.head == 2 * 40
    assert flops.attention == 3 * 4 * 2 * 2 * 15 / 5
    assert flops.six_n == 6 * parameter_count(network)
    generation = count_generation(network, flops)
    assert generation.flops == flops.blocks + flops.head + 3 * 4 * 2 * 2 * 5
    read = parameter_count(network) - 40 + 4 + 5 * 12  # all but the look-up table, of which a row; five cached tokens
    assert generation.bytes_read == {"float32": 4 * read, "bfloat16": 2 * read}
    assert generation.cache_bytes["float32"] == 3 * 2 * 1 * 2 * 4


def test_a_tied_head_is_read_though_the_embedding_is_only_looked_up() -> None:
    def read(tied: bool) -> int:
        network = Decoder(small("qwen3", tied_embeddings=tied))
        return count_generation(network, count_flops(network, trace(network, 1, 4), 1, 4)).bytes_read["float32"]

    assert read(True) == read(False)


def test_other_heads_and_adapters_are_counted() -> None:
    scored = ScoredDecoder(Decoder(small("qwen3")))
    found = by_name(trace(scored, 2, 6))
    assert (found["score"].output, found["score"].flops) == ((2, 6, 1), 2 * 12 * 24)
    assert total(list(found.values()), "parameters") == parameter_count(scored)
    assert found["head"].input is None and found["head"].flops == 0  # it has parameters and is not called

    classifier = Classifier(Decoder(small("gpt1")), "classification", 5)
    found = by_name(trace(classifier, 2, 6))
    assert found["score"].output == (2, 5)
    assert total(list(found.values()), "parameters") == parameter_count(classifier)

    adapted = Decoder(small("qwen3"))
    before = total(trace(adapted, 2, 6), "flops")
    add_lora(adapted, LoraConfig(rank=3, targets=("attention.query",)), seed=0)
    layers = trace(adapted, 2, 6)
    assert total(layers, "parameters") == parameter_count(adapted)
    assert total(layers, "flops") - before == 4 * 2 * 12 * 3 * (24 + 32)
    assert counted(adapted.eval(), 2, 6) - counted(Decoder(small("qwen3")), 2, 6) == 4 * 2 * 12 * 3 * (24 + 32)


def test_a_published_size_is_counted_without_its_memory() -> None:
    gpt1 = build_imagined(preset("gpt1"))
    layers = trace(gpt1, 1, 512)
    assert total(layers, "parameters") == 116_534_784
    flops = count_flops(gpt1, layers, 1, 512)
    assert flops.blocks == 12 * 2 * 12 * 768**2 and flops.head == 2 * 768 * 40_478
    assert all(weight.is_meta for weight in gpt1.parameters())


def test_the_network_is_as_it_was_and_too_long_a_row_is_refused() -> None:
    network = Decoder(small("qwen3")).initialise(0)
    before = {name: weight.clone() for name, weight in network.named_parameters()}
    trace(network, 2, 6)
    assert all(torch.equal(weight, before[name]) for name, weight in network.named_parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    with pytest.raises(GenerationError, match="longer than the context of 32"):
        trace(network, 1, 33)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
