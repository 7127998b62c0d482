"""Log-probabilities and entropies from the vectors before the head, against torch's own log-softmax, values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from duihua.nn.head_log_probabilities import head_log_probabilities, head_readings


def plain(hidden: Tensor, head: Tensor, temperature: float, soft_cap: float) -> Tensor:
    """All log-probabilities, (n, v), the textbook way."""
    logits = hidden @ head.T
    if soft_cap:
        logits = soft_cap * torch.tanh(logits / soft_cap)
    return (logits / temperature).log_softmax(-1)


def case() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """hidden (n, d), head (v, d), targets and the weights that come later, (n,)."""
    torch.manual_seed(0)
    hidden, head = torch.randn(50, 6, requires_grad=True), torch.randn(40, 6, requires_grad=True)
    return hidden, head, torch.randint(0, 40, (50,)), torch.randn(50)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("soft_cap", [0.0, 3.0])
def test_values_and_gradients_are_those_of_the_plain_formula(temperature: float, soft_cap: float) -> None:
    hidden, head, targets, weights = case()
    expected = plain(hidden, head, temperature, soft_cap).gather(1, targets[:, None])[:, 0]
    found = head_log_probabilities(hidden, head, targets, temperature, soft_cap)
    assert (found - expected).abs().max() < 1e-5

    def gradients(log_probabilities: Tensor) -> list[Tensor]:
        once, again = (
            torch.autograd.grad((log_probabilities * weights).sum(), (hidden, head), retain_graph=True)
            for _ in range(2)
        )
        assert all(map(torch.equal, once, again))  # what the first backward read is still there
        return list(once)

    wanted = gradients(expected)
    assert all((x - y).abs().max() < 1e-5 for x, y in zip(gradients(found), wanted, strict=True))
    for wrong in (
        head_log_probabilities(hidden, head, targets, temperature * 1.1, soft_cap),
        head_log_probabilities(hidden, head, targets, temperature, soft_cap + 2.0),
        head_log_probabilities(hidden, head, targets.roll(1), temperature, soft_cap),
    ):
        assert all((x - y).abs().max() > 1e-2 for x, y in zip(gradients(wrong), wanted, strict=True))


def test_only_what_is_asked_for_gets_a_gradient() -> None:
    hidden, head, targets, _ = case()
    head_log_probabilities(hidden, head.detach(), targets).sum().backward()  # type: ignore[no-untyped-call]
    assert hidden.grad is not None
    hidden, head, targets, _ = case()
    head_log_probabilities(hidden.detach(), head, targets).sum().backward()  # type: ignore[no-untyped-call]
    assert head.grad is not None
    with torch.no_grad():
        assert not head_log_probabilities(hidden, head, targets).requires_grad


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_entropies_are_those_of_torch_and_log_probabilities_the_same_to_the_last_bit(temperature: float) -> None:
    hidden, head, targets, _ = case()
    readings = head_readings(hidden, head, targets, temperature, 3.0)
    assert torch.equal(readings.logprobs_n, head_log_probabilities(hidden, head, targets, temperature, 3.0))
    expected = torch.distributions.Categorical(logits=plain(hidden, head, temperature, 3.0)).entropy()
    assert (readings.entropies_n - expected).abs().max() < 1e-5
    assert (head_readings(hidden, head, targets, temperature + 0.1, 3.0).entropies_n - expected).abs().max() > 1e-2


def test_under_autocast_the_product_is_short_and_the_softmax_is_not() -> None:
    hidden, head, targets, weights = case()
    expected = plain(hidden.bfloat16(), head.bfloat16(), 1.0, 0.0).float().gather(1, targets[:, None])[:, 0]
    in_full = head_log_probabilities(hidden, head, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = head_log_probabilities(hidden, head, targets)
        readings = head_readings(hidden, head, targets)
    assert found.dtype == torch.float32
    assert torch.equal(readings.logprobs_n, found)
    assert not torch.allclose(found, in_full, atol=1e-6), "bf16 was really used"
    assert (found - expected).abs().max() < 0.1
    of_bf16, of_full = (torch.autograd.grad((one * weights).sum(), (hidden, head)) for one in (found, in_full))
    for short, full in zip(of_bf16, of_full, strict=True):
        assert short.dtype == torch.float32
        assert 0 < (short - full).abs().max() < 0.05 * full.abs().max()
    entropies = torch.distributions.Categorical(logits=plain(hidden.bfloat16(), head.bfloat16(), 1.0, 0.0).float())
    assert (readings.entropies_n - entropies.entropy()).abs().max() < 0.05


def test_a_vanishing_probability_has_a_finite_logarithm_and_gradient() -> None:
    logits = torch.tensor([[200.0, 0.0], [1.0, 1.0]], requires_grad=True)
    found = head_log_probabilities(logits, torch.eye(2), torch.tensor([1, 0]))
    assert found.tolist() == pytest.approx([-200.0, -0.693147], abs=1e-4)
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert logits.grad.tolist() == [[-1.0, 1.0], [0.5, -0.5]]
    assert head_readings(logits, torch.eye(2), torch.tensor([1, 0])).entropies_n.tolist() == pytest.approx(
        [0, 0.693147]
    )


def test_no_tokens_at_all_are_no_error() -> None:
    hidden, head, targets, _ = case()
    found = head_log_probabilities(hidden[:0], head, targets[:0])
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert head.grad is not None
    assert not head.grad.any()
