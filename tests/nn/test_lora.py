"""LoRA by itself: where it starts, what it trains, and that merging changes nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from duihua.errors import ConfigError
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder
from duihua.models.heads import ScoredDecoder
from duihua.nn.lora import (
    LoraLinear,
    adapters,
    add_lora,
    frozen_fingerprint,
    lora_parameters,
    matrices_of_blocks,
    merge_lora,
    twin,
)
from duihua.nn.lora_config import MODULES, LoraConfig
from duihua.nn.products import Linear

IDS = torch.arange(24).view(2, 12) % 40


def decoder(**changes: object) -> Decoder:
    """A random decoder whose blocks do something."""
    shape = {"vocabulary_size": 40, "width": 16, "layers": 2, "heads": 2, "key_value_heads": 1, "head_width": 8}
    config = DecoderConfig(**{**shape, "feed_forward_width": 24, "context": 16, **changes})  # type: ignore[arg-type]
    network = Decoder(config).initialise(0)
    randomise(dict(network.named_parameters()), 0.3)
    return network


def randomise(weights: dict[str, nn.Parameter], scale: float, seed: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in weights.values():
            if weight.ndim == 2:
                weight.copy_(torch.randn(weight.shape, generator=generator) * scale)


def logits(network: nn.Module) -> Tensor:
    with torch.no_grad():
        found: Tensor = network.eval()(IDS)
    return found


def test_the_first_step_is_the_base_exactly() -> None:
    network = decoder()
    before = logits(network)
    add_lora(network, LoraConfig(rank=4, dropout=0.1), seed=3)
    assert torch.equal(logits(network), before)
    randomise(lora_parameters(network), 0.1)
    assert not torch.allclose(logits(network), before, atol=1e-2)


def test_the_update_is_scale_b_a_x() -> None:
    linear = nn.Linear(3, 2)
    adapted = LoraLinear(linear, rank=1, scale=2.0)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
        linear.bias.zero_()
        adapted.lora_a.copy_(torch.tensor([[0.0, 0.0, 1.0]]))
        adapted.lora_b.copy_(torch.tensor([[1.0], [-1.0]]))
    assert adapted(torch.tensor([1.0, 2.0, 3.0])).tolist() == [1.0 + 2 * 3, 2.0 - 2 * 3]


def test_a_is_drawn_from_its_own_seed_within_one_over_root_inputs() -> None:
    networks = [decoder() for _ in range(3)]
    for network, seed in zip(networks, (3, 3, 4), strict=True):
        torch.rand(7)  # whatever else has been drawn
        add_lora(network, LoraConfig(), seed)
    first, same, other = (lora_parameters(network) for network in networks)
    assert all(torch.equal(first[name], same[name]) for name in first)
    drawn = [name for name in first if name.endswith("lora_a")]
    assert not any(torch.equal(first[name], other[name]) for name in drawn)
    a = first["blocks.0.attention.query.lora_a"]
    assert 0.2 < float(a.detach().abs().max()) <= 16**-0.5
    assert all(not weight.any() for name, weight in first.items() if name.endswith("lora_b"))


def test_merged_equals_unmerged_and_a_wrong_scale_does_not() -> None:
    network = decoder()
    add_lora(network, LoraConfig(rank=4, alpha=8.0), seed=0)
    randomise(lora_parameters(network), 0.3)
    wrong = copy.deepcopy(network)
    for _, adapted in adapters(wrong):
        adapted.scale = 8.0  # alpha, and not alpha / rank
    before = logits(network)
    merge_lora(network)
    assert not list(adapters(network))
    assert all(type(matrix) is Linear for _, matrix in matrices_of_blocks(network))
    assert float(before.abs().max()) > 1.0
    assert torch.allclose(logits(network), before, atol=1e-5)
    merge_lora(wrong)
    assert not torch.allclose(logits(wrong), before, atol=1e-2), "negative control"


def test_merging_keeps_biases_and_number_formats() -> None:
    network = decoder(attention_bias=True, feed_forward_bias=True, gated=False, query_key_norm="none").bfloat16()
    add_lora(network, LoraConfig(rank=2), seed=0)
    assert all(weight.dtype == torch.bfloat16 for weight in lora_parameters(network).values())
    biases = {name: weight.clone() for name, weight in network.named_parameters() if name.endswith("bias")}
    merge_lora(network)
    left = dict(network.named_parameters())
    assert biases and all(torch.equal(left[name], bias) for name, bias in biases.items())
    assert {weight.dtype for weight in left.values()} == {torch.bfloat16}


def test_only_a_and_b_receive_gradients() -> None:
    network = decoder()
    add_lora(network, LoraConfig(rank=2), seed=0)
    randomise(lora_parameters(network), 0.3)
    network(IDS).square().sum().backward()
    moved = {name for name, weight in network.named_parameters() if weight.grad is not None}
    assert moved == set(lora_parameters(network))
    assert len(moved) == 2 * 2 * len(MODULES)


def test_gradients_equal_those_of_the_merged_matrix() -> None:
    """dL/dB = scale dL/dW A^T and dL/dA = scale B^T dL/dW, with dL/dW from torch's own linear layer."""
    network = decoder()
    add_lora(network, LoraConfig(rank=2, alpha=6.0), seed=0)
    randomise(lora_parameters(network), 0.3)
    plain = copy.deepcopy(network)
    merge_lora(plain)
    plain.requires_grad_(True)
    for each in (network, plain):
        each(IDS).square().mean().backward()
    of_plain = dict(plain.named_parameters())
    for name, adapted in adapters(network):
        whole = of_plain[f"{name}.weight"].grad
        assert whole is not None and adapted.lora_a.grad is not None and adapted.lora_b.grad is not None
        assert torch.allclose(adapted.lora_b.grad, 3.0 * whole @ adapted.lora_a.T, atol=1e-5), name
        assert torch.allclose(adapted.lora_a.grad, 3.0 * adapted.lora_b.T @ whole, atol=1e-5), name


def test_checkpointed_blocks_still_train_their_adapters() -> None:
    """Frozen embeddings give the first block an input without gradient, at which reentrant checkpointing loses all."""
    found = []
    for checkpointed in (False, True):
        network = decoder()
        add_lora(network, LoraConfig(rank=2), seed=0)
        randomise(lora_parameters(network), 0.3)
        network.gradient_checkpointing = checkpointed
        network.train()(IDS).square().mean().backward()
        found.append({name: weight.grad for name, weight in lora_parameters(network).items()})
    assert all(torch.allclose(found[0][name], found[1][name], atol=1e-6) for name in found[0])  # type: ignore[arg-type]


def test_dropout_is_on_the_adapters_input_and_in_training_only() -> None:
    network = decoder()
    add_lora(network, LoraConfig(rank=2, dropout=0.5), seed=0)
    randomise(lora_parameters(network), 0.3)
    assert torch.equal(logits(network), logits(network))
    network.train()
    torch.manual_seed(0)
    assert not torch.equal(network(IDS), network(IDS))
    for name, weight in lora_parameters(network).items():
        if name.endswith("lora_b"):
            nn.init.zeros_(weight)
    assert torch.equal(network(IDS), network(IDS)), "the frozen path has no dropout"


def test_rank_stabilised_scale_is_alpha_over_root_rank() -> None:
    assert LoraConfig(rank=16, alpha=8.0).scale == 0.5
    assert LoraConfig(rank=16, alpha=8.0, rank_stabilised=True).scale == 2.0


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (("attention.query", "attention.value"), {"attention.query", "attention.value"}),
        (("feed_forward",), {"feed_forward.gate", "feed_forward.up", "feed_forward.down"}),
        (("attention", "feed_forward"), set(MODULES)),
    ],
)
def test_targets_choose_matrices_of_every_block(targets: tuple[str, ...], expected: set[str]) -> None:
    network = ScoredDecoder(decoder())
    add_lora(network, LoraConfig(targets=targets), seed=0)
    names = [name for name, _ in adapters(network)]
    assert {name.split(".", 3)[3] for name in names} == expected
    assert len(names) == 2 * len(expected)


def test_a_target_that_is_not_there_is_refused_with_the_list() -> None:
    with pytest.raises(ConfigError, match=r"targets: there is no matrix 'q_proj'.*attention\.query"):
        LoraConfig(targets=("q_proj",))
    with pytest.raises(ConfigError, match="targets"):
        LoraConfig(targets=())
    ungated = decoder(gated=False)
    with pytest.raises(ConfigError, match=r"no matrix 'feed_forward.gate'.*It has .*feed_forward\.up"):
        add_lora(ungated, LoraConfig(targets=("feed_forward.gate",)), seed=0)
    add_lora(ungated, LoraConfig(), seed=0)
    with pytest.raises(ConfigError, match="none without an adapter"):
        add_lora(ungated, LoraConfig(), seed=0)


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        LoraConfig(**wrong)  # type: ignore[arg-type]


def test_a_twin_shares_memory_and_keeps_its_own_modules() -> None:
    network = decoder(tied_embeddings=True)
    before = logits(network)
    other = twin(network)
    assert all(a.data_ptr() == b.data_ptr() for a, b in zip(network.parameters(), other.parameters(), strict=True))
    add_lora(network, LoraConfig(), seed=0)
    randomise(lora_parameters(network), 0.3)
    assert not torch.allclose(logits(network), before, atol=1e-2)
    assert torch.equal(logits(other), before)
    merge_lora(network)
    assert torch.equal(logits(other), before), "merging leaves the shared matrix as it was"
    network.train()
    assert not other.training


def test_the_fingerprint_is_of_the_frozen_weights_alone() -> None:
    network, again = decoder(), decoder()
    assert frozen_fingerprint(network) == ""
    for each in (network, again):
        add_lora(each, LoraConfig(), seed=0)
    randomise(lora_parameters(again), 0.3)
    assert frozen_fingerprint(network) == frozen_fingerprint(again)
    with torch.no_grad():
        again.embedding.weight[0, 0] += 1e-6
    assert frozen_fingerprint(network) != frozen_fingerprint(again)
