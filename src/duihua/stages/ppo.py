"""PPO: the policy learns to earn the reward model's score without leaving the reference (Ouyang et al. 2022, section 3.5).

Four networks: the policy and the critic are trained; the reference (the SFT model that the policy starts from) and the
reward model stand still, and with LoRA lend the other two their weights. In each iteration the policy answers prompts;
every token earns -beta log(pi / pi_ref), the last one the reply's score on top (Ziegler et al. 2019, eq. 2); advantages
come from GAE (Schulman et al. 2016, eq. 16) and are whitened over the rollout; then a few epochs of the clipped objective
(Schulman et al. 2017, eq. 7) and of the clipped value error move policy and critic. `rollout.py` holds the first half,
`Loss` below the second; the loop is the one Trainer.

The bundle holds the policy alone. The critic lives in the checkpoints.
"""

from __future__ import annotations

import json
import math
import time
from typing import Any

import torch
from torch import Tensor, nn

from duihua import console
from duihua.data.records import LeftOut, Split
from duihua.data.source import Source
from duihua.errors import ConfigError
from duihua.models.bundle import Bundle, ModelCard, load_bundle, merge_terms, save_bundle
from duihua.nn.lora import add_lora, twin
from duihua.stages import judging
from duihua.stages.actor_critic import ActorCritic, Critic, ReplyBatch, freeze, switch_off_dropout
from duihua.stages.comparison import Comparison, compare
from duihua.stages.configs.ppo import PPOConfig
from duihua.stages.context import StageContext, StageResult
from duihua.stages.judging import check_context, check_tokenizers
from duihua.stages.low_rank import finish_lora
from duihua.stages.ppo_math import policy_loss, value_loss
from duihua.stages.pretrain import source_terms
from duihua.stages.prompts import open_sources, require_stop_token
from duihua.stages.replies import Prompt, engine_sampler, sampled_in_parts, scored_in_parts
from duihua.stages.rollout import ROLLOUT_METRICS, Rollout
from duihua.stages.scoring import Rule, reward_scorer, rule_scorer
from duihua.text.chat_template import ChatTemplate
from duihua.training.config import ScheduleConfig
from duihua.training.precision import compute_dtype
from duihua.training.ranks import only_first_goes_on
from duihua.training.trainer import Batch, LossParts, Trainer

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

        def total(values_br: Tensor) -> Tensor:
            return torch.where(mask, values_br, torch.zeros_like(values_br)).sum()

        tokens = float(mask.sum())
        sums = {
            "policy_loss": float(total(policy.loss.detach())),
            "value_loss": float(total(value.detach())),
            "approximate_kl": float(total(policy.approximate_kl)),
            "ratio": float(total(policy.ratio)),
            "clip_fraction": float(total(policy.clipped.float())),
        }
        self.rollout.observe(sums["approximate_kl"], tokens)
        metrics = {name: (value, tokens) for name, value in sums.items()}
        for name, figure in zip(ROLLOUT_METRICS, batch["rollout"].tolist(), strict=True):
            if not math.isnan(figure):  # a gold score that is not known is not logged
                metrics[name] = (figure * tokens, tokens)
        return LossParts(total(policy.loss) + self.config.value_coefficient * total(value), tokens, metrics)


def run(config: PPOConfig, context: StageContext, reward: Rule | None = None, gold: Rule | None = None) -> StageResult:
    """Train the input "policy" against the input "reward"; give a policy bundle.

    reward: a Python rule (messages of the prompt, reply text) -> number, in place of a reward model. gold: a rule that is
    only measured, to see whether the reward is being gamed. Raises ConfigError, DataError, BundleError, TrainingError.
    """
    started = time.monotonic()
    if context.threads:
        torch.set_num_threads(context.threads)
    dtype = compute_dtype(config.trainer.precision, context.device)
    policy = load_bundle(context.input("policy"), context.device)
    reference = twin(policy.policy) if config.lora else load_bundle(policy.directory, context.device).policy
    judge = None if reward is not None else load_bundle(context.input("reward"), context.device)
    check_inputs(config, policy, judge)
    scorer = scored_in_parts(
        reward_scorer(judge, dtype=dtype) if judge else rule_scorer(_given(reward), policy.tokenizer)
    )
    gold_scorer = scored_in_parts(rule_scorer(gold, policy.tokenizer)) if gold else None

    left_out = LeftOut()
    sources = open_sources(config.sources, context.data_directory, "conversations", "ppo.sources")
    train = choose_prompts(config, sources, "train", config.train_prompts, policy, context.seed, left_out)
    heldout = choose_prompts(config, sources, "heldout", config.heldout_prompts, policy, context.seed, left_out)
    console.say(
        f"ppo: {len(train)} prompts to train on, {len(heldout)} held out, {config.steps} updates; "
        f"left out {json.dumps(dict(left_out.counts), ensure_ascii=False)}"
    )

    if config.lora:
        add_lora(policy.policy, config.lora, context.seed)
    network = ActorCritic(policy.policy, make_critic(config, context, judge))
    freeze(reference)
    if judge:
        freeze(judge.reward)
    switch_off_dropout(network, reference, *([judge.reward] if judge else []))
    network.to(context.device)
    rollout = Rollout(
        network,
        reference,
        scorer,
        sampled_in_parts(
            engine_sampler(
                policy.policy,
                policy.tokenizer,
                reply_tokens=config.reply_tokens,
                temperature=config.temperature,
                slots=config.slots,
                dtype=dtype,
            )
        ),
        train,
        policy.tokenizer,
        config,
        seed=context.seed,
        directory=context.directory,
        gold=gold_scorer,
        dtype=dtype,
    )
    trained = Trainer(
        network,
        Loss(config, rollout),
        rollout,
        steps=config.steps,
        optimizer=config.optimizer,
        schedule=ScheduleConfig(kind="linear", warmup_steps=0),
        config=config.trainer,
        directory=context.directory,
        device=context.device,
        seed=context.seed,
        label="ppo",
    ).run()
    only_first_goes_on()

    own_terms = merge_terms(judge.terms if judge else [], source_terms(sources))
    adapted = (
        finish_lora(policy.policy, config.lora, policy, context.directory, "ppo", own_terms) if config.lora else {}
    )
    compared = compare(
        reference,
        policy.policy,
        scorer,
        heldout,
        policy.tokenizer,
        config,
        seed=context.seed,
        kl_coefficient=rollout.controller.coefficient,
        dtype=dtype,
    )
    terms = merge_terms(policy.terms, own_terms)
    metrics: dict[str, Any] = {
        **adapted,
        "steps": trained.steps,
        "skipped_steps": trained.skipped_steps,
        "iterations": rollout.iteration,
        "rollouts_given_up": rollout.given_up,
        **compared.to_mapping(config.samples),
        "prompts": {
            "train": len(train),
            "heldout": len(heldout),
            "heldout_by_source": dict(count_prompts(heldout)),
        },
        "left_out": left_out.to_mapping(),
        "last_update": trained.last_metrics,
        "terms": [dict(row) for row in terms],
        "training_seconds": trained.seconds,
        "seconds": time.monotonic() - started,
    }
    show(compared)
    card = ModelCard(
        title="Duihua chat model, trained with PPO",
        stage="ppo",
        description="A policy trained by proximal policy optimisation against a reward model learnt from preferences.",
        terms=terms,
        metrics={
            "reward gain on held-out prompts": compared.gain.value,
            "its standard error": compared.gain.standard_error,
            "KL from the reference, nats a reply": compared.kl,
        },
    )
    save_bundle(context.directory, policy.policy, policy.tokenizer, card)
    result = StageResult(context.directory, metrics)
    result.save(context.directory)
    return result


def _given(rule: Rule | None) -> Rule:
    assert rule is not None
    return rule


def check_inputs(config: PPOConfig, policy: Bundle, judge: Bundle | None) -> None:
    """The bundles fit each other and the lengths fit both contexts."""
    check_context("ppo", config.prompt_tokens, config.reply_tokens, (policy, judge))
    if judge:
        check_tokenizers(policy.tokenizer, judge)
    require_stop_token(ChatTemplate(policy.tokenizer), str(policy.directory))
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


def choose_prompts(
    config: PPOConfig, sources: list[Source], split: Split, count: int, policy: Bundle, seed: int, left_out: LeftOut
) -> list[Prompt]:
    """Up to `count` prompts of a split that are short enough; DataError where there are next to none."""
    template = ChatTemplate(policy.tokenizer)
    return judging.choose_prompts(
        "ppo", sources, config.sources, split, count, config.prompt_tokens, template, seed, left_out
    )


def count_prompts(prompts: list[Prompt]) -> dict[str, int]:
    """Prompts by source."""
    counts: dict[str, int] = {}
    for prompt in prompts:
        counts[prompt.source] = counts.get(prompt.source, 0) + 1
    return counts


def show(compared: Comparison) -> None:
    """The comparison as a table on the console."""
    before, after = compared.before, compared.after
    console.table(
        f"ppo: {compared.gain.n} held-out prompts",
        ["", "before", "after"],
        [
            ["reward", before.reward, after.reward],
            ["KL from the reference (nats)", 0.0, compared.kl],
            ["replies that ended", before.eos_rate, after.eos_rate],
            ["length (tokens)", before.length, after.length],
            ["repeated 4-grams", before.repetition, after.repetition],
        ],
    )
    console.say(f"reward gain {compared.gain.value:+.3f} +- {compared.gain.standard_error:.3f} (paired standard error)")


__all__ = ["Loss", "run"]
