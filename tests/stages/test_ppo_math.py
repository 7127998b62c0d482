"""The equations of PPO against direct definitions and numbers that can be checked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from duihua.stages.ppo_math import (
    KLController,
    explained_variance,
    generalized_advantages,
    kl_rewards,
    penalise_missing_end,
    policy_loss,
    value_loss,
    whiten,
)


def unclipped_update(_: object, self: KLController, kl: float, sequences: int) -> None:
    """The controller of Ziegler et al. without the clip of its error."""
    self.coefficient *= 1 + (kl / self.target - 1) * sequences / self.horizon


def ragged(rows: int = 5, width: int = 7, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Random rewards and values for replies of different lengths; junk behind the replies, which nobody may read."""
    generator = torch.Generator().manual_seed(seed)
    rewards, values = (torch.randn(rows, width, generator=generator) for _ in range(2))
    lengths = torch.tensor([1 + (3 * row + 2) % width for row in range(rows)])
    mask = torch.arange(width)[None] < lengths[:, None]
    return torch.where(mask, rewards, 99.0), torch.where(mask, values, -77.0), mask


def advantages_by_definition(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> Tensor:
    """A_t = sum_l (gamma lambda)^l delta_{t+l}, written as the double loop of the paper."""
    result = torch.zeros_like(rewards)
    for row in range(len(rewards)):
        length = int(mask[row].sum())
        for t in range(length):
            for k in range(t, length):
                after = float(values[row, k + 1]) if k + 1 < length else 0.0
                delta = float(rewards[row, k]) + gamma * after - float(values[row, k])
                result[row, t] += (gamma * lam) ** (k - t) * delta
    return result


@pytest.mark.checklist(15)
@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.8), (1.0, 1.0), (1.0, 0.0)])
def test_gae_equals_its_definition(gamma: float, lam: float) -> None:
    rewards, values, mask = ragged()
    advantages, returns = generalized_advantages(rewards, values, mask, gamma=gamma, lam=lam)
    expected = advantages_by_definition(rewards, values, mask, gamma, lam)
    torch.testing.assert_close(advantages, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(returns, torch.where(mask, expected + values, 0.0), rtol=1e-5, atol=1e-5)
    forwards = generalized_advantages(rewards.flip(1), values.flip(1), mask.flip(1), gamma=gamma, lam=lam)[0].flip(1)
    assert not torch.allclose(forwards, expected, atol=1e-2), "GAE run forwards in time must not pass"


def advantages_as_cleanrl(
    rewards: Tensor, values: Tensor, starts: Tensor, last_value: float, last_done: float, gamma: float, lam: float
) -> Tensor:
    """The recurrence of cleanrl's ppo.py (github.com/vwxyzjn/cleanrl, Huang et al. 2022), written anew, for one environment.

    Steps follow one another through the ends of episodes; starts: 1 where a step begins a new episode, so that neither a
    value nor an advantage reaches back over it. last_value, last_done: of the step behind the last.
    """
    advantages, lastgaelam = torch.zeros_like(rewards), torch.zeros(())
    for t in reversed(range(len(rewards))):
        if t == len(rewards) - 1:
            nextnonterminal, nextvalues = 1.0 - last_done, torch.tensor(last_value)
        else:
            nextnonterminal, nextvalues = 1.0 - float(starts[t + 1]), values[t + 1]
        delta = rewards[t] + gamma * nextvalues * nextnonterminal - values[t]
        advantages[t] = lastgaelam = delta + gamma * lam * nextnonterminal * lastgaelam
    return advantages


@pytest.mark.checklist(15)
@pytest.mark.mutation(
    "a reply goes on behind its last token",
    "duihua.stages.ppo_math:generalized_advantages",
    lambda right, r, v, m, **k: right(r, v, torch.ones_like(m), **k),
)
@pytest.mark.mutation(
    "the discount is not applied",
    "duihua.stages.ppo_math:generalized_advantages",
    lambda right, r, v, m, **k: right(r, v, m, **{**k, "gamma": 1.0}),
)
@pytest.mark.mutation(
    "the error of one step alone is taken",
    "duihua.stages.ppo_math:generalized_advantages",
    lambda right, r, v, m, **k: right(r, v, m, **{**k, "lam": 0.0}),
)
def test_gae_equals_the_recurrence_of_cleanrl_over_replies_laid_end_to_end() -> None:
    """Each reply is an episode; one behind the other they are one environment's steps, each ending where the next begins."""
    rewards, values, mask = ragged(rows=8, seed=5)
    starts = torch.zeros_like(rewards)
    starts[:, 0] = 1.0
    steps = rewards[mask], values[mask], starts[mask]
    for gamma, lam in ((0.99, 0.95), (0.9, 0.8)):
        expected = advantages_as_cleanrl(*steps, last_value=-77.0, last_done=1.0, gamma=gamma, lam=lam)
        advantages, returns = generalized_advantages(rewards, values, mask, gamma=gamma, lam=lam)
        torch.testing.assert_close(advantages[mask], expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(returns[mask], expected + values[mask], rtol=0, atol=1e-5)
        endless = advantages_as_cleanrl(
            steps[0], steps[1], torch.zeros_like(steps[2]), last_value=0.0, last_done=1.0, gamma=gamma, lam=lam
        )
        assert not torch.allclose(endless, expected, atol=1e-2), "replies that run into one another must not pass"


@pytest.mark.checklist(15)
@pytest.mark.mutation(
    "advantages are summed forwards in time",
    "duihua.stages.ppo_math:generalized_advantages",
    lambda right, r, v, m, **k: tuple(x.flip(1) for x in right(r.flip(1), v.flip(1), m.flip(1), **k)),
)
@pytest.mark.mutation(
    "lambda is not applied",
    "duihua.stages.ppo_math:generalized_advantages",
    lambda right, r, v, m, **k: right(r, v, m, **{**k, "lam": 1.0}),
)
def test_gae_of_three_tokens_by_hand() -> None:
    """gamma 1, lambda 0.5: deltas (1+2-1, 0+3-2, 5-3) = (2, 1, 2); A = (2 + .5(1 + .5*2), 1 + .5*2, 2) = (3, 2, 2)."""
    rewards, values = torch.tensor([[1.0, 0.0, 5.0]]), torch.tensor([[1.0, 2.0, 3.0]])
    advantages, returns = generalized_advantages(rewards, values, torch.ones(1, 3, dtype=torch.bool), lam=0.5)
    assert advantages.tolist() == [[3.0, 2.0, 2.0]]
    assert returns.tolist() == [[4.0, 4.0, 5.0]]


@pytest.mark.checklist(15)
def test_lambda_one_is_monte_carlo_and_lambda_zero_is_td() -> None:
    rewards, values, mask = ragged(seed=3)
    monte_carlo = generalized_advantages(rewards, values, mask, lam=1.0)[1]
    for row in range(len(rewards)):
        length = int(mask[row].sum())
        for t in range(length):
            assert float(monte_carlo[row, t]) == pytest.approx(float(rewards[row, t:length].sum()), abs=1e-4)
            after = float(values[row, t + 1]) if t + 1 < length else 0.0
            one_step = float(rewards[row, t]) + after - float(values[row, t])
            found = generalized_advantages(rewards, values, mask, lam=0.0)[0]
            assert float(found[row, t]) == pytest.approx(one_step, abs=1e-4)


@pytest.mark.checklist(14)
@pytest.mark.mutation(
    "what stands behind a reply is counted",
    "duihua.stages.ppo_math:generalized_advantages",
    lambda right, r, v, m, **k: right(r, v, torch.ones_like(m), **k),
)
def test_padding_changes_no_return() -> None:
    rewards, values, mask = ragged()
    alone = [
        generalized_advantages(rewards[r : r + 1, : int(m.sum())], values[r : r + 1, : int(m.sum())], m[None, m])[1]
        for r, m in enumerate(mask)
    ]
    together = generalized_advantages(rewards, values, mask)[1]
    for row, own in enumerate(alone):
        torch.testing.assert_close(together[row, mask[row]], own[0])
    unmasked = generalized_advantages(rewards, values, torch.ones_like(mask))[1]
    assert not torch.allclose(unmasked[mask], together[mask]), "reading the pads must not pass"


@pytest.mark.checklist(12, 14)
@pytest.mark.mutation(
    "the score stands one token later", "duihua.stages.ppo_math:kl_rewards", lambda right, *a: right(*a).roll(1, dims=1)
)
@pytest.mark.mutation(
    "the penalty is k3 and not k1",
    "duihua.stages.ppo_math:kl_rewards",
    lambda right, p, q, *a: right(q - p + (p - q).exp() - 1, torch.zeros_like(p), *a),
)
def test_score_stands_on_the_last_generated_token_and_kl_on_all() -> None:
    mask = torch.tensor([[True, True, True], [True, False, False]])
    logprobs = torch.tensor([[-1.0, -2.0, -3.0], [-1.0, -9.0, -9.0]])
    reference = torch.tensor([[-1.5, -1.0, -3.0], [-2.0, 0.0, 0.0]])
    rewards = kl_rewards(logprobs, reference, torch.tensor([10.0, 20.0]), mask, 0.1)
    torch.testing.assert_close(rewards, torch.tensor([[-0.05, 0.1, 10.0], [19.9, 0.0, 0.0]]))


@pytest.mark.checklist(14)
def test_score_one_token_late_would_lose_it() -> None:
    """The negative control of the row above: put where the next token would be, the score falls behind the mask."""
    mask = torch.tensor([[True, True, False]])
    zero = torch.zeros(1, 3)
    right = kl_rewards(zero, zero, torch.tensor([4.0]), mask, 0.1)
    late = right.roll(1, dims=1)
    assert generalized_advantages(right, zero, mask, lam=1.0)[1][0, 0] == 4.0
    assert generalized_advantages(late, zero, mask, lam=1.0)[1][0, 0] == 0.0


@pytest.mark.checklist(12)
@pytest.mark.mutation(
    "the penalty has the other sign",
    "duihua.stages.ppo_math:kl_rewards",
    lambda right, p, q, s, mask, beta: right(p, q, s, mask, -beta),
)
def test_kl_rewards_sum_to_the_log_ratio_of_the_reply() -> None:
    generator = torch.Generator().manual_seed(0)
    logprobs, reference = (-torch.rand(4, 6, generator=generator) for _ in range(2))
    mask = torch.arange(6)[None] < torch.tensor([6, 1, 3, 4])[:, None]
    rewards = kl_rewards(logprobs, reference, torch.zeros(4), mask, 1.0)
    torch.testing.assert_close(rewards.sum(dim=1), -((logprobs - reference) * mask).sum(dim=1))
    assert kl_rewards(logprobs, logprobs, torch.zeros(4), mask, 1.0).abs().max() == 0.0


@pytest.mark.checklist(11)
@pytest.mark.mutation(
    "the penalty is a reward",
    "duihua.stages.ppo_math:penalise_missing_end",
    lambda right, s, ended, *, rule, value: right(s, ended, rule="subtract", value=-9.0),
)
@pytest.mark.parametrize(
    ("rule", "expected"), [("replace", [2.0, -1.5, 0.5]), ("subtract", [2.0, 1.5, 0.5]), ("none", [2.0, 3.0, 0.5])]
)
def test_missing_end_penalty(rule: str, expected: list[float]) -> None:
    scores, ended = torch.tensor([2.0, 3.0, 0.5]), torch.tensor([True, False, True])
    assert penalise_missing_end(scores, ended, rule=rule, value=1.5).tolist() == expected


@pytest.mark.checklist(17)
@pytest.mark.mutation(
    "what stands behind a reply enters the statistics",
    "duihua.stages.ppo_math:whiten",
    lambda right, v, mask, **k: right(v, torch.ones_like(mask), **k) * mask,
)
def test_whitening_gives_mean_0_and_deviation_1_over_the_mask_alone() -> None:
    values, _, mask = ragged(rows=6)
    white = whiten(values, mask)
    assert float(white[mask].mean()) == pytest.approx(0.0, abs=1e-6)
    assert float(white[mask].std(unbiased=False)) == pytest.approx(1.0, abs=1e-5)
    assert float(white[~mask].abs().max()) == 0.0
    with_pads = (values - values.mean()) / values.std(unbiased=False)
    assert abs(float(with_pads[mask].mean())) > 0.5, "statistics that count the pads must not pass"


@pytest.mark.checklist(17)
@pytest.mark.mutation(
    "each rank whitens by its own statistics",
    "duihua.stages.ppo_math:whiten",
    lambda right, v, mask, **k: right(v, mask),
)
def test_whitening_does_not_depend_on_the_split_over_ranks() -> None:
    values, _, mask = ragged(rows=6)
    whole = whiten(values, mask)
    parts = [slice(0, 1), slice(1, 6)]
    sums: list[list[Tensor]] = [[], []]
    for part in parts:  # first pass: what each rank would send; the squares need the global mean, so two rounds
        kept = torch.where(mask[part], values[part], 0.0).double()
        sums[0].append(torch.stack([mask[part].sum().double(), kept.sum()]))
    first = sum(sums[0], torch.zeros(2, dtype=torch.float64))
    mean = first[1] / first[0]
    squares = sum((((values[p].double() - mean) ** 2)[mask[p]].sum() for p in parts), torch.zeros(()).double())
    for part in parts:
        answers = iter([first, squares])
        torch.testing.assert_close(whiten(values[part], mask[part], reduce=lambda _, a=answers: next(a)), whole[part])
        alone = whiten(values[part], mask[part])
        assert not torch.allclose(alone, whole[part], atol=1e-3), "statistics of one rank must not pass"


@pytest.mark.checklist(16)
@pytest.mark.mutation(
    "whitening of the rewards shifts their mean to 0",
    "duihua.stages.ppo_math:whiten",
    lambda right, v, mask, **k: right(v, mask),
)
def test_reward_whitening_keeps_the_mean() -> None:
    values, _, mask = ragged(rows=6)
    white = whiten(values, mask, shift_mean=False)
    assert float(white[mask].mean()) == pytest.approx(float(values[mask].mean()), abs=1e-5)
    assert float(white[mask].std(unbiased=False)) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.checklist(18)
def test_equal_policies_have_ratio_1_kl_0_and_nothing_clipped() -> None:
    logprobs, advantages = -torch.rand(3, 4), torch.randn(3, 4)
    found = policy_loss(logprobs, logprobs.clone(), advantages, clip=0.2)
    assert torch.equal(found.ratio, torch.ones(3, 4))
    assert torch.equal(found.approximate_kl, torch.zeros(3, 4))
    assert not found.clipped.any()
    torch.testing.assert_close(found.loss, -advantages)


@pytest.mark.checklist(18)
@pytest.mark.mutation(
    "the objective is not clipped",
    "duihua.stages.ppo_math:policy_loss",
    lambda right, p, q, a, *, clip: right(p, q, a, clip=1e9),
)
def test_clipped_objective_by_hand() -> None:
    """clip 0.2; (ratio, A): (1.5, 1) -> -1.2 clipped; (0.5, 1) -> -0.5; (1.5, -1) -> 1.5; (0.5, -1) -> 0.8 clipped."""
    ratios, advantages = torch.tensor([1.5, 0.5, 1.5, 0.5]), torch.tensor([1.0, 1.0, -1.0, -1.0])
    found = policy_loss(ratios.log(), torch.zeros(4), advantages, clip=0.2)
    torch.testing.assert_close(found.loss, torch.tensor([-1.2, -0.5, 1.5, 0.8]))
    assert found.clipped.tolist() == [True, False, False, True]


@pytest.mark.checklist(18)
def test_clipped_tokens_have_no_gradient_and_the_others_do() -> None:
    logprobs = torch.tensor([1.5, 0.5, 1.5, 0.5]).log().requires_grad_()
    advantages = torch.tensor([1.0, 1.0, -1.0, -1.0])
    policy_loss(logprobs, torch.zeros(4), advantages, clip=0.2).loss.sum().backward()
    assert logprobs.grad is not None
    torch.testing.assert_close(logprobs.grad, torch.tensor([0.0, -0.5, 1.5, 0.0]))
    unclipped = torch.tensor([1.5, 0.5, 1.5, 0.5]).log().requires_grad_()
    (-advantages * unclipped.exp()).sum().backward()
    assert unclipped.grad is not None
    assert float(unclipped.grad[0]) != 0.0, "the objective without clipping must not pass"


@pytest.mark.checklist(19)
@pytest.mark.mutation(
    "the value is not clipped",
    "duihua.stages.ppo_math:value_loss",
    lambda right, v, old, r, *, clip: right(v, old, r, clip=1e9),
)
def test_value_outside_its_clip_has_zero_gradient_towards_the_return() -> None:
    """Old value 0, return 1: at 0.1 the gradient is 0.1 - 1; at 0.3, outside the clip of 0.2, it is 0."""
    for value, expected in ((0.1, -0.9), (0.3, 0.0)):
        values = torch.tensor([[value]], requires_grad=True)
        value_loss(values, torch.zeros(1, 1), torch.ones(1, 1), clip=0.2).sum().backward()
        assert values.grad is not None
        assert float(values.grad) == pytest.approx(expected)


@pytest.mark.checklist(19)
def test_value_loss_by_hand() -> None:
    """Old 0, clip 0.2, return 1: V = 0.5 is limited to 0.2, so 0.5 max(0.25, 0.64) = 0.32."""
    assert float(value_loss(torch.tensor([0.5]), torch.zeros(1), torch.ones(1), clip=0.2)) == pytest.approx(0.32)


@pytest.mark.checklist(27)
def test_explained_variance_of_perfect_constant_and_wrong_critics() -> None:
    returns, mask = torch.tensor([[1.0, 2.0, 3.0, 9.0]]), torch.tensor([[True, True, True, False]])
    assert explained_variance(returns, returns, mask) == pytest.approx(1.0)
    assert explained_variance(torch.full((1, 4), 5.0), returns, mask) == pytest.approx(0.0)
    assert explained_variance(-returns, returns, mask) == pytest.approx(-3.0)


@pytest.mark.checklist(13)
def test_fixed_controller_never_moves() -> None:
    controller = KLController(0.05)
    controller.update(100.0, 64)
    assert controller.coefficient == 0.05


@pytest.mark.checklist(13)
@pytest.mark.mutation("the error is not clipped", "duihua.stages.ppo_math:KLController.update", unclipped_update)
def test_adaptive_controller_moves_by_the_clipped_error() -> None:
    """Target 6, horizon 100, 10 replies: KL 60 is an error of 9, clipped to 0.2, so the factor is 1.02; KL 5.7 gives 0.995."""
    controller = KLController(1.0, target=6.0, horizon=100.0)
    controller.update(60.0, 10)
    assert controller.coefficient == pytest.approx(1.02)
    controller.update(5.7, 10)
    assert controller.coefficient == pytest.approx(1.02 * 0.995)


def settled_kl(sign: float) -> float:
    """KL after 400 steps of a plant in which a larger coefficient means a smaller KL."""
    controller, kl = KLController(0.05, target=6.0, horizon=1000.0), 0.0
    for _ in range(400):
        kl = 0.9 * kl + 0.1 * (1.5 / controller.coefficient)
        controller.update(kl if sign > 0 else 12.0 - kl, 64)
    return kl


@pytest.mark.checklist(13)
@pytest.mark.mutation(
    "the coefficient falls where the divergence is too large",
    "duihua.stages.ppo_math:KLController.update",
    lambda right, self, kl, n: right(self, 2 * self.target - kl, n),
)
def test_adaptive_controller_brings_a_synthetic_plant_to_its_target() -> None:
    assert settled_kl(+1.0) == pytest.approx(6.0, rel=0.02)
    assert not math.isclose(settled_kl(-1.0), 6.0, rel_tol=0.2), "a controller of the wrong sign must not pass"
