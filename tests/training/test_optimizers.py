"""SGD, Adam and AdamW equal torch's, and the memory that is promised is the memory that is held."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder
from duihua.training.config import OptimizerConfig
from duihua.training.optimizers import Optimizer, state_bytes

SETTINGS: dict[str, Any] = {"learning_rate": 0.05, "beta1": 0.9, "beta2": 0.98, "epsilon": 1e-6, "momentum": 0.8}


def make_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))


def follow(network: nn.Module, step: Any) -> Tensor:
    """Ten updates on fixed gradients that do not depend on the optimizer; the weights after them."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(10):
        for weight in network.parameters():
            weight.grad = torch.randn(weight.shape, generator=generator) + 0.1 * weight.detach()
        step()
    return torch.cat([weight.detach().flatten() for weight in network.parameters()])


def theirs(kind: str, decay: float) -> Tensor:
    network = make_network()
    matrices = [weight for weight in network.parameters() if weight.ndim == 2]
    vectors = [weight for weight in network.parameters() if weight.ndim == 1]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer: torch.optim.Optimizer
    if kind == "sgd":
        optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.8)
    else:
        form = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[kind]
        optimizer = form(groups, lr=0.05, betas=(0.9, 0.98), eps=1e-6)
    return follow(network, optimizer.step)


def ours(kind: Any, decay: float, **changes: Any) -> Tensor:
    network = make_network()
    optimizer = Optimizer(network, OptimizerConfig(kind=kind, weight_decay=decay, **(SETTINGS | changes)))
    return follow(network, lambda: optimizer.step(1.0))


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_updates_equal_those_of_torch(kind: str, decay: float) -> None:
    expected = theirs(kind, decay)
    assert (ours(kind, decay) - expected).abs().max() < 1e-6
    assert (ours(kind, decay, learning_rate=0.051) - expected).abs().max() > 1e-4


def test_adam_and_adamw_differ_by_the_decay_alone() -> None:
    assert torch.equal(ours("adam", 0.0), ours("adamw", 0.0))
    assert (ours("adam", 0.3) - ours("adamw", 0.3)).abs().max() > 1e-2


def test_plain_gradient_descent_by_hand() -> None:
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(2.0)
    optimizer = Optimizer(network, OptimizerConfig(kind="sgd", learning_rate=0.5, momentum=0.0))
    network.weight.grad = torch.full((1, 1), 3.0)
    optimizer.step(0.1)
    assert network.weight.item() == pytest.approx(2.0 - 0.5 * 0.1 * 3.0)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("kind", ["muon", "adamw", "adam", "sgd"])
def test_the_promised_state_is_the_state_that_is_held(kind: Any, momentum: float) -> None:
    network = Decoder(
        DecoderConfig(vocabulary_size=30, width=8, layers=2, heads=2, head_width=4, feed_forward_width=12)
    )
    config = OptimizerConfig(kind=kind, momentum=momentum)
    optimizer = Optimizer(network, config)
    for weight in network.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step(0.1)
    held = sum(
        t.numel() * t.element_size() for t in optimizer.state_dict().values() if t.ndim
    )  # not Adam's step counts
    assert held == state_bytes(network, config)
    with torch.device("meta"):
        assert state_bytes(Decoder(network.config), config) == held
