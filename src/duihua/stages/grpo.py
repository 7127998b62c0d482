"""GRPO and RLOO: the policy learns which of its own replies to a prompt are better than the others, without a critic.

In each iteration the policy writes a group of replies to every prompt. A judge (reward model, rules that are worked out,
or Python) scores them, a reply's advantage is its score against its group (group_math.py), and every token of it carries
that advantage through PPO's clipped objective (Schulman et al. 2017, equation 7), as in Shao et al. 2024, equation 3.
Against wandering off stands the KL to the reference: a term k3 of the loss, or part of the reward (Ahmadian et al. 2024).
`group_rollout.py` holds the first half, `Loss` below the second; the loop is the one Trainer, and what comes before and after
is that of policy_training.py.

RLOO's published loss is REINFORCE on whole replies. Its gradient at the policy that sampled is the one here: the ratio is
1, so that sum_t A grad(ratio_t) = A grad(log pi(reply)). Later updates on the same replies differ, token by token clipped.
"""

from __future__ import annotations

from torch import nn

from duihua.nn.lora import add_lora
from duihua.stages.actor_critic import Actor, ReplyBatch
from duihua.stages.configs.grpo import GRPOConfig
from duihua.stages.context import StageContext, StageResult
from duihua.stages.group_math import k3, token_weights
from duihua.stages.group_rollout import GROUP_METRICS, GroupRollout
from duihua.stages.over_optimisation import held_out_meter, over_optimisation
from duihua.stages.policy_training import begin, finish, learn_from, reply_sum, rollout_of, update_metrics
from duihua.stages.ppo_math import policy_loss
from duihua.stages.scoring import Rule
from duihua.training.trainer import Batch, LossParts

NAMES = {"grpo": "GRPO", "rloo": "RLOO"}
COEFFICIENT = GROUP_METRICS.index("kl_coefficient")
LOSS_METRICS = ("policy_loss", "kl_loss", "approximate_kl", "ratio", "clip_fraction")
"""Logged of each update, beside GROUP_METRICS of the rollout that it learns from."""


class Loss:
    """The clipped objective of a micro-batch and the KL term, summed over reply tokens with their weights."""

    def __init__(self, config: GRPOConfig, rollout: GroupRollout) -> None:
        self.config, self.rollout = config, rollout

    def __call__(self, network: nn.Module, batch: Batch) -> LossParts:
        """L = sum_t w_t (L_clip,t + beta k3_t), over what `loss_average` says; prompt tokens and pads count nothing."""
        mask = batch["reply_mask"]
        replies = ReplyBatch(batch["token_ids"], batch["prompt_lengths"], mask)
        now = network(replies, self.config.temperature)
        policy = policy_loss(now.logprobs, batch["logprobs"], batch["advantages"], clip=self.config.clip)
        beta = float(batch["rollout"][COEFFICIENT]) if self.config.kl_in_loss else 0.0
        kl_br = k3(now.logprobs, batch["reference"])
        loss_br = policy.loss + beta * kl_br if beta else policy.loss
        weights_br, weight = token_weights(mask, self.config.loss_average, self.config.reply_tokens)
        metrics = update_metrics(self.rollout, batch, policy, {"kl_loss": kl_br.detach()})
        return LossParts(reply_sum(loss_br * weights_br, mask), weight, metrics)


def run(config: GRPOConfig, context: StageContext, reward: Rule | None = None, gold: Rule | None = None) -> StageResult:
    """Train the input "policy" against the input "reward" or the config's rules; give a policy bundle.

    reward: a Python rule (messages of the prompt, reply text) -> number, in place of both. gold: a rule that is only
    measured, in place of the config's gold rules, as in PPO. Raises ConfigError, DataError, BundleError, TrainingError.
    """
    start = begin("grpo", config, context, rules=config.rules, reward=reward)
    meter, name = held_out_meter(start, config, gold), NAMES[config.kind]
    start.say(f"{name}, {config.steps} updates, ")
    if config.lora:
        add_lora(start.policy.policy, config.lora, context.seed)
    rollout = rollout_of(GroupRollout, start, Actor(start.policy.policy), config, gold)
    trained = learn_from(rollout, start, config, Loss(config, rollout), meter)
    return finish(
        start,
        trained,
        {
            "kind": config.kind,
            "iterations": rollout.iteration,
            "rollouts_given_up": rollout.given_up,
            **over_optimisation(meter, start, config),
        },
        title=f"Duihua chat model, trained with {name}",
        description="A policy trained on groups of its own replies, each judged against the others to its prompt.",
        kl_coefficient=rollout.controller.coefficient,
    )


__all__ = ["Loss", "run"]
