"""PPO and the reward model's loss are TRL's: rewards, advantages, losses and gradients on a rollout that TRL's own loop read.

The fixture is what TRL 1.12.0 computed (tests/fixtures/make_trl_ppo.py). Three things differ by intent and are held here
too: TRL divides by n - 1 when it whitens, gives the score one token after the last one where a reply is shorter than the
limit, and counts that token as one more whose value is learnt.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from duihua.nn.head_log_probabilities import head_log_probabilities
from duihua.stages.ppo_math import (
    generalized_advantages,
    kl_rewards,
    penalise_missing_end,
    policy_loss,
    value_loss,
    whiten,
)
from duihua.stages.reward import bradley_terry

TRL = json.loads((Path(__file__).parents[1] / "fixtures" / "trl_ppo.json").read_text(encoding="utf-8"))
KNOWN = TRL["constants"]
FULL = ("full", "full, rewards whitened")
CASES = (*FULL, "ragged")


def drawn(name: str) -> Tensor:
    return torch.tensor(TRL["drawn"][name], dtype=torch.float64)


def of(case: str, name: str) -> Tensor:
    return torch.tensor(TRL[case][name], dtype=torch.float64)


def mask_of(case: str, *, one_more: bool = False) -> Tensor:
    """True on the tokens of each reply; `one_more`: and on the one behind it, which TRL's values go through."""
    mask = torch.tensor(TRL[case]["mask"])
    if one_more:
        mask = mask | torch.cat([torch.ones_like(mask[:, :1]), mask[:, :-1]], dim=1)
    return mask


def near(ours: Tensor, theirs: Tensor, mask: Tensor, tolerance: float = 2e-6) -> bool:
    """Equal to rounding in fp32 where the mask is true."""
    return torch.allclose(ours.double()[mask], theirs[mask], rtol=tolerance, atol=tolerance)


def scored(case: str) -> Tensor:
    """The scores less the penalty for replies without an end token (id 1)."""
    ended = (torch.tensor(TRL[case]["tokens"]) == 1).any(dim=1)
    return penalise_missing_end(drawn("scores"), ended, rule="subtract", value=KNOWN["missing_end_value"])


def rewards_and_advantages(case: str, mask: Tensor, *, white: bool = False, shift: bool = True) -> tuple[Tensor, ...]:
    """Ours: rewards, advantages before whitening, returns."""
    old, reference = of(case, "logprobs"), of(case, "ref_logprobs")
    rewards = kl_rewards(old, reference, scored(case), mask, KNOWN["kl_coefficient"])
    if white:
        rewards = whiten(rewards.double(), mask, shift_mean=shift) * bessel(mask, rewards.double(), shift)
    advantages, returns = generalized_advantages(
        rewards.double(), of(case, "values"), mask, gamma=KNOWN["gamma"], lam=KNOWN["gae_lambda"]
    )
    return rewards, advantages, returns


def bessel(mask: Tensor, values: Tensor, shifted: bool) -> Tensor:
    """By what TRL's whitened values differ from ours: it divides the squares by n - 1. The mean, where it stays, does not."""
    count = int(mask.sum())
    factor = ((count - 1) / count) ** 0.5
    if shifted:
        return torch.tensor(factor)
    mean = values[mask].mean()
    white = whiten(values, mask, shift_mean=False)
    return torch.where(mask, (mean + (white - mean) * factor) / white, torch.ones_like(white))


def log_probabilities(logits: Tensor, tokens: Tensor, temperature: float) -> Tensor:
    """Ours, of logits (b, t, v) as they are: the head is the identity, which changes no bit of them."""
    flat = logits.flatten(0, -2)
    head = torch.eye(flat.shape[1], dtype=flat.dtype)
    return head_log_probabilities(flat, head, tokens.flatten(), temperature).view(tokens.shape)


@pytest.mark.parametrize("case", CASES)
def test_log_probabilities_and_scores_are_those_of_trl(case: str) -> None:
    tokens, mask = torch.tensor(TRL[case]["tokens"]), mask_of(case)
    for logits, name in (("logits", "logprobs"), ("reference_logits", "ref_logprobs")):
        ours = log_probabilities(drawn(logits), tokens, KNOWN["temperature"])
        assert near(ours, of(case, name), mask)
        assert not near(log_probabilities(drawn(logits), tokens, 1.0), of(case, name), mask), "the temperature counts"
    assert torch.allclose(scored(case), of(case, "scores"))


@pytest.mark.parametrize("case", FULL)
@pytest.mark.checklist(12)
def test_rewards_advantages_and_returns_are_those_of_trl(case: str) -> None:
    mask, white = mask_of(case), "whitened" in case
    rewards, advantages, returns = rewards_and_advantages(case, mask, white=white, shift=False)
    assert near(rewards, of(case, "rewards"), mask)
    assert near(returns, of(case, "returns"), mask)
    assert near(advantages, of(case, "returns") - of(case, "values"), mask)
    factor = bessel(mask, advantages, True)
    assert near(whiten(advantages, mask) * factor, of(case, "advantages"), mask)
    kl_n = ((of(case, "logprobs") - of(case, "ref_logprobs")) * mask).sum(dim=1)
    assert float(kl_n.mean()) == pytest.approx(TRL[case]["figures"]["objective/kl"], rel=1e-5)
    # Negative controls: rewards not whitened (or whitened), and those of another KL estimator.
    others = rewards_and_advantages(case, mask, white=not white, shift=False)
    assert not near(others[0], of(case, "rewards"), mask)
    assert not near(rewards, of("full, k3", "rewards"), mask), "k1 and k3 are two estimators"


@pytest.mark.checklist(14)
def test_trl_gives_the_score_one_token_later_and_is_else_the_same() -> None:
    """With the token that TRL counts behind a short reply as one of it, ours are its numbers; without it, they are not."""
    case, longer = "ragged", mask_of("ragged", one_more=True)
    assert int(longer.sum()) > int(mask_of(case).sum())
    rewards, advantages, returns = rewards_and_advantages(case, longer)
    assert near(rewards, of(case, "rewards"), longer)
    assert near(returns, of(case, "returns"), longer)
    factor = bessel(mask_of(case), advantages, True)
    assert near(whiten(advantages, mask_of(case)) * factor, of(case, "advantages"), mask_of(case))
    _, ours, _ = rewards_and_advantages(case, mask_of(case))
    assert not near(ours, of(case, "returns") - of(case, "values"), mask_of(case))


@pytest.mark.checklist(17)
def test_whitening_over_pads_is_not_trls() -> None:
    case, mask = "ragged", mask_of("ragged")
    _, advantages, _ = rewards_and_advantages(case, mask_of(case, one_more=True))
    everywhere = whiten(torch.where(mask, advantages, 0.0), torch.ones_like(mask))
    assert not near(everywhere * bessel(mask, advantages, True), of(case, "advantages"), mask, 1e-2)


def losses(case: str, *, clip: float, value_clip: float) -> tuple[float, float, Tensor, Tensor]:
    """Our policy and value loss on TRL's rollout, and the gradients of logits and values of the sum."""
    tokens, mask, longer = torch.tensor(TRL[case]["tokens"]), mask_of(case), mask_of(case, one_more=True)
    logits, values = drawn("new_logits").requires_grad_(), drawn("new_values").requires_grad_()
    now = (logits / KNOWN["temperature"]).log_softmax(dim=-1).gather(-1, tokens[..., None])[..., 0]
    policy = policy_loss(now, of(case, "logprobs"), of(case, "advantages"), clip=clip)
    value = value_loss(values, of(case, "values"), of(case, "returns"), clip=value_clip)
    policy_mean, value_mean = policy.loss[mask].mean(), value[longer].mean()
    (policy_mean + KNOWN["value_coefficient"] * value_mean).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None and values.grad is not None
    return float(policy_mean.detach()), float(value_mean.detach()), logits.grad, values.grad


@pytest.mark.parametrize("case", CASES)
@pytest.mark.checklist(18, 19)
def test_losses_and_gradients_are_those_of_trl(case: str) -> None:
    policy, value, of_logits, of_values = losses(case, clip=KNOWN["clip"], value_clip=KNOWN["value_clip"])
    # TRL adds 1e-7 to the temperature.
    assert policy == pytest.approx(TRL[case]["pg_loss"], rel=1e-6, abs=1e-7)
    assert value == pytest.approx(TRL[case]["vf_loss"], rel=1e-6)
    gradients = TRL[case]["gradients"]
    torch.testing.assert_close(of_logits, torch.tensor(gradients["logits"], dtype=torch.float64), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(of_values, torch.tensor(gradients["values"], dtype=torch.float64), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.checklist(18, 19)
def test_without_either_clip_they_are_not(case: str) -> None:
    policy, value, of_logits, of_values = losses(case, clip=1e9, value_clip=1e9)
    assert policy != pytest.approx(TRL[case]["pg_loss"], rel=1e-3)
    assert value != pytest.approx(TRL[case]["vf_loss"], rel=1e-3)
    gradients = TRL[case]["gradients"]
    assert not torch.allclose(of_logits, torch.tensor(gradients["logits"], dtype=torch.float64), atol=1e-4)
    assert not torch.allclose(of_values, torch.tensor(gradients["values"], dtype=torch.float64), atol=1e-4)


def test_the_share_that_is_clipped_is_trls() -> None:
    case, mask = "full", mask_of("full")
    tokens = torch.tensor(TRL[case]["tokens"])
    now = log_probabilities(drawn("new_logits"), tokens, KNOWN["temperature"]).double()
    policy = policy_loss(now, of(case, "logprobs"), of(case, "advantages"), clip=KNOWN["clip"])
    share = float(policy.clipped[mask].double().mean())
    assert 0 < share < 1
    assert share == pytest.approx(TRL[case]["figures"]["policy/clipfrac_avg"], rel=1e-6)


@pytest.mark.parametrize("name", ["plain", "margin", "centred"])
@pytest.mark.checklist(5)
def test_the_reward_models_loss_is_that_of_trl(name: str) -> None:
    known: dict[str, Any] = TRL["reward"][name]
    scores = torch.tensor([TRL["reward"]["chosen"], TRL["reward"]["rejected"]], dtype=torch.float64, requires_grad=True)
    loss = bradley_terry(scores[0], scores[1], known["margin"], known["centering"]).mean()
    loss.backward()
    assert scores.grad is not None
    assert float(loss.detach()) == pytest.approx(known["value"], rel=1e-9)
    torch.testing.assert_close(
        scores.grad.flatten(), torch.tensor(known["gradient"], dtype=torch.float64), rtol=1e-9, atol=1e-12
    )
    turned = bradley_terry(scores[1], scores[0], known["margin"], known["centering"]).mean()
    assert float(turned.detach()) != pytest.approx(known["value"], rel=1e-2)
    for other in {"plain", "margin", "centred"} - {name}:
        assert float(loss.detach()) != pytest.approx(TRL["reward"][other]["value"], rel=1e-4)
