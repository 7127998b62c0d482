"""PPO: the policy learns to earn the reward model's score without leaving the reference (Ouyang et al. 2022, section 3.5).

Four networks: the policy and the critic are trained; the reference (the SFT model that the policy starts from) and the
reward model stand still, and with LoRA lend the other two their weights. In each iteration the policy answers prompts;
every token earns -beta log(pi / pi_ref), the last one the reply's score on top (Ziegler et al. 2019, eq. 2); advantages
come from GAE (Schulman et al. 2016, eq. 16) and are whitened over the rollout; then a few epochs of the clipped objective
(Schulman et al. 2017, eq. 7) and of the clipped value error move policy and critic. `rollout.py` holds the first half,
`Loss` below the second; the loop is the one Trainer, and what comes before and after is that of policy_training.py.

The bundle holds the policy alone. The critic lives in the checkpoints.
"""

from __future__ import annotations

from torch import nn

from duihua import console
from duihua.errors import ConfigError
from duihua.models.bundle import Bundle, load_bundle
from duihua.nn.lora import add_lora, twin
from duihua.stages.actor_critic import ActorCritic, Critic, ReplyBatch
from duihua.stages.configs.ppo import PPOConfig
from duihua.stages.context import StageContext, StageResult
from duihua.stages.over_optimisation import held_out_meter, over_optimisation
from duihua.stages.policy_training import begin, finish, learn_from, reply_sum, rollout_of, update_metrics
from duihua.stages.ppo_math import policy_loss, value_loss
from duihua.stages.rollout import Rollout
from duihua.stages.scoring import Rule
from duihua.training.trainer import Batch, LossParts

LOSS_METRICS = ("policy_loss", "value_loss", "approximate_kl", "ratio", "clip_fraction")
"""Logged of each update, beside ROLLOUT_METRICS of the rollout that it learns from."""


class Loss:
    """The PPO objective of a micro-batch: summed over reply tokens, weighed by their number."""

    def __init__(self, config: PPOConfig, rollout: Rollout) -> None:
        self.config, self.rollout = config, rollout

    def __call__(self, network: nn.Module, batch: Batch) -> LossParts:
        """L = L_clip + c L_value over the reply tokens; prompt tokens and pads earn nothing and cost nothing."""
        assert isinstance(network, ActorCritic)
        mask = batch["reply_mask"]
        replies = ReplyBatch(batch["token_ids"], batch["prompt_lengths"], mask)
        now = network(replies, self.config.temperature)
        policy = policy_loss(now.logprobs, batch["logprobs"], batch["advantages"], clip=self.config.clip)
        value = value_loss(now.values, batch["values"], batch["returns"], clip=self.config.value_clip)
        metrics = update_metrics(self.rollout, batch, policy, {"value_loss": value.detach()})
        total = reply_sum(policy.loss, mask) + self.config.value_coefficient * reply_sum(value, mask)
        return LossParts(total, float(mask.sum()), metrics)


def run(config: PPOConfig, context: StageContext, reward: Rule | None = None, gold: Rule | None = None) -> StageResult:
    """Train the input "policy" against the input "reward"; give a policy bundle.

    reward: a Python rule (messages of the prompt, reply text) -> number, in place of a reward model. gold: a rule that is
    only measured, in place of the config's gold rules, to see whether the reward is being gamed, in the rollouts and, with
    `trainer.evaluate_every`, on held-out prompts, where it judges if there is no input "judge". Raises ConfigError, DataError,
    BundleError, TrainingError.
    """
    start = begin(
        "ppo",
        config,
        context,
        reward=reward,
        check=lambda _, judge: check_inputs(config, judge.bundle),
    )
    meter = held_out_meter(start, config, gold)
    start.say(f"{config.steps} updates, ")
    policy, judge = start.policy, start.judge.bundle
    if config.lora:
        add_lora(policy.policy, config.lora, context.seed)
    network = ActorCritic(policy.policy, make_critic(config, context, judge))
    rollout = rollout_of(Rollout, start, network, config, gold)
    trained = learn_from(rollout, start, config, Loss(config, rollout), meter)
    return finish(
        start,
        trained,
        {
            "iterations": rollout.iteration,
            "rollouts_given_up": rollout.given_up,
            **over_optimisation(meter, start, config),
        },
        title="Duihua chat model, trained with PPO",
        description="A policy trained by proximal policy optimisation against a reward model learnt from preferences.",
        kl_coefficient=rollout.controller.coefficient,
    )


def check_inputs(config: PPOConfig, judge: Bundle | None) -> None:
    """What PPO asks beside what all policies' training asks; says where nothing holds the policy."""
    if not config.kl_coefficient:
        console.warn("ppo: kl_coefficient is 0, so nothing holds the policy near its reference")
    if judge is None and config.critic == "reward":
        raise ConfigError(
            "a critic that starts from the reward model needs a reward model", where="ppo.critic", remedy="Use shared"
        )


def make_critic(config: PPOConfig, context: StageContext, judge: Bundle | None) -> Critic | None:
    """A critic of its own: a second copy of the reward model, normalised alike. None where it shares the policy's trunk.

    With LoRA it is the reward model's own weights with adapters beside them and a head of its own.
    """
    if config.critic == "shared":
        return None
    assert judge is not None
    if config.lora:
        critic = twin(judge.reward)
        add_lora(critic, config.lora, context.seed + 1)
        critic.score.weight = nn.Parameter(judge.reward.score.weight.detach().clone())
    else:
        critic = load_bundle(judge.directory, context.device).reward
    known = judge.normalisation
    return Critic(critic, known.mean if known else 0.0, known.standard_deviation if known else 1.0)


__all__ = ["Loss", "run"]
