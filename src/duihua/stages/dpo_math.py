"""The losses of direct preference optimisation, as pure functions on sums of log-probabilities.

Why there is no reward model: the policy that is best for a reward under a KL penalty has r(x, y) = beta log(pi(y|x) /
pi_ref(y|x)) + a term of the prompt alone, which cancels between two replies to one prompt. Put into the Bradley-Terry
likelihood of a preference, that gives a loss of the policy itself (Rafailov et al. 2023, "Direct Preference Optimization",
equations 5 to 7). Label smoothing takes a share of the pairs to be the wrong way round (Mitchell 2023, "A note on DPO with
noisy preferences", conservative DPO). IPO regresses the same difference to a finite number, so that a pair which is always
judged alike cannot drive it to infinity (Azar et al. 2023, "A General Theoretical Paradigm to Understand Learning from
Human Preferences", equation 17).

Shapes: p pairs. Every argument is the sum of a reply's log-probabilities in nats (or their mean, where a stage divides
by the reply's length).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

Kind = Literal["sigmoid", "ipo"]


def log_ratio_difference(
    chosen_p: Tensor, rejected_p: Tensor, reference_chosen_p: Tensor, reference_rejected_p: Tensor
) -> Tensor:
    """h = log(pi(y_c) / pi_ref(y_c)) - log(pi(y_r) / pi_ref(y_r)), (p,): times beta, the difference of implicit rewards."""
    return (chosen_p - reference_chosen_p) - (rejected_p - reference_rejected_p)


def preference_loss(
    chosen_p: Tensor,
    rejected_p: Tensor,
    reference_chosen_p: Tensor,
    reference_rejected_p: Tensor,
    *,
    beta: float,
    loss: Kind = "sigmoid",
    label_smoothing: float = 0.0,
) -> Tensor:
    """The loss of each pair, (p,). At the start, where policy and reference are equal, it is ln 2, or (1 / 2 beta)^2.

    sigmoid: -(1 - e) log sigmoid(beta h) - e log sigmoid(-beta h) with e = label_smoothing. ipo: (h - 1 / (2 beta))^2.
    """
    h_p = log_ratio_difference(chosen_p, rejected_p, reference_chosen_p, reference_rejected_p)
    if loss == "ipo":
        return (h_p - 1 / (2 * beta)) ** 2
    right_p = -nn.functional.logsigmoid(beta * h_p)
    if not label_smoothing:
        return right_p
    return (1 - label_smoothing) * right_p - label_smoothing * nn.functional.logsigmoid(-beta * h_p)
