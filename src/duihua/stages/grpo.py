"""GRPO and RLOO: the policy learns which of its own replies to a prompt are better than the others, without a critic.

In each iteration the policy writes a group of replies to every prompt. A judge (reward model, rules that are worked out,
or Python) scores them, a reply's advantage is its score against its group (group_math.py), and every token of it carries
that advantage through PPO's clipped objective (Schulman et al. 2017, equation 7), as in Shao et al. 2024, equation 3.
Against wandering off stands the KL to the reference: a term k3 of the loss, or part of the reward (Ahmadian et al. 2024).
`group_rollout.py` holds the first half, `Loss` below the second; the loop is the one Trainer.

RLOO's published loss is REINFORCE on whole replies. Its gradient at the policy that sampled is the one here: the ratio is
1, so that sum_t A grad(ratio_t) = A grad(log pi(reply)). Later updates on the same replies differ, token by token clipped.
"""

from __future__ import annotations

import json
import math
import time
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from duihua import console
from duihua.data.records import LeftOut
from duihua.models.bundle import ModelCard, load_bundle, merge_terms, save_bundle
from duihua.nn.lora import add_lora, twin
from duihua.stages.actor_critic import Actor, ReplyBatch, freeze, switch_off_dropout
from duihua.stages.comparison import Comparison, compare
from duihua.stages.configs.grpo import GRPOConfig
from duihua.stages.context import StageContext, StageResult
from duihua.stages.group_math import k3, token_weights
from duihua.stages.group_rollout import GROUP_METRICS, GroupRollout
from duihua.stages.judging import check_context, choose_prompts, make_judge, rules_table
from duihua.stages.low_rank import finish_lora
from duihua.stages.ppo_math import policy_loss
from duihua.stages.pretrain import source_terms
from duihua.stages.prompts import open_sources
from duihua.stages.replies import engine_sampler, sampled_in_parts, scored_in_parts
from duihua.stages.scoring import Rule, rule_scorer
from duihua.text.chat_template import ChatTemplate
from duihua.training.config import ScheduleConfig
from duihua.training.precision import compute_dtype
from duihua.training.ranks import only_first_goes_on
from duihua.training.trainer import Batch, LossParts, Trainer

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

        def total(values_br: Tensor) -> Tensor:
            return torch.where(mask, values_br, torch.zeros_like(values_br)).sum()

        tokens = float(mask.sum())
        sums = {
            "policy_loss": float(total(policy.loss.detach())),
            "kl_loss": float(total(kl_br.detach())),
            "approximate_kl": float(total(policy.approximate_kl)),
            "ratio": float(total(policy.ratio)),
            "clip_fraction": float(total(policy.clipped.float())),
        }
        self.rollout.observe(sums["approximate_kl"], tokens)
        metrics = {name: (value, tokens) for name, value in sums.items()}
        for name, figure in zip(GROUP_METRICS, batch["rollout"].tolist(), strict=True):
            if not math.isnan(figure):  # a gold score that is not known is not logged
                metrics[name] = (figure * tokens, tokens)
        return LossParts(total(loss_br * weights_br), weight, metrics)


def run(config: GRPOConfig, context: StageContext, reward: Rule | None = None, gold: Rule | None = None) -> StageResult:
    """Train the input "policy" against the input "reward" or the config's rules; give a policy bundle.

    reward: a Python rule (messages of the prompt, reply text) -> number, in place of both. gold: a rule that is only
    measured, to see whether the reward is being gamed. Raises ConfigError, DataError, BundleError, TrainingError.
    """
    started = time.monotonic()
    if context.threads:
        torch.set_num_threads(context.threads)
    name = NAMES[config.kind]
    dtype = compute_dtype(config.trainer.precision, context.device)
    policy = load_bundle(context.input("policy"), context.device)
    judge = make_judge("grpo", config.rules, context, policy.tokenizer, dtype, reward)
    check_context("grpo", config.prompt_tokens, config.reply_tokens, [policy, judge.bundle])
    reference = twin(policy.policy) if config.lora else load_bundle(policy.directory, context.device).policy
    gold_scorer = scored_in_parts(rule_scorer(gold, policy.tokenizer)) if gold else None

    left_out, template = LeftOut(), ChatTemplate(policy.tokenizer)
    sources = open_sources(config.sources, context.data_directory, "conversations", "grpo.sources")
    choose = partial(
        choose_prompts,
        "grpo",
        sources,
        config.sources,
        prompt_tokens=config.prompt_tokens,
        template=template,
        seed=context.seed,
        left_out=left_out,
        unfit=judge.problem,
    )
    train, heldout = choose("train", config.train_prompts), choose("heldout", config.heldout_prompts)
    console.say(
        f"grpo: {name}, {len(train)} prompts to train on, {len(heldout)} held out, {config.steps} updates; "
        f"left out {json.dumps(dict(left_out.counts), ensure_ascii=False)}"
    )

    if config.lora:
        add_lora(policy.policy, config.lora, context.seed)
    network = Actor(policy.policy)
    freeze(reference)
    if judge.bundle:
        freeze(judge.bundle.reward)
    switch_off_dropout(network, reference, *([judge.bundle.reward] if judge.bundle else []))
    network.to(context.device)
    rollout = GroupRollout(
        network,
        reference,
        scored_in_parts(judge.scorer),
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
        label="grpo",
    ).run()
    only_first_goes_on()

    own_terms = merge_terms(judge.bundle.terms if judge.bundle else [], source_terms(sources))
    adapted = (
        finish_lora(policy.policy, config.lora, policy, context.directory, "grpo", own_terms) if config.lora else {}
    )
    compared = compare(
        reference,
        policy.policy,
        judge.scorer,
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
        "kind": config.kind,
        "steps": trained.steps,
        "iterations": rollout.iteration,
        "rollouts_given_up": rollout.given_up,
        **compared.to_mapping(config.samples),
        **rules_table(
            config.rules if reward is None else (),
            reference,
            policy.policy,
            heldout,
            policy.tokenizer,
            config.reply_tokens,
        ),
        "prompts": {"train": len(train), "heldout": len(heldout)},
        "left_out": left_out.to_mapping(),
        "last_update": trained.last_metrics,
        "terms": [dict(row) for row in terms],
        "training_seconds": trained.seconds,
        "seconds": time.monotonic() - started,
    }
    show_comparison("grpo", compared)
    for rule in metrics.get("rules", []):
        say_rule("grpo", rule)
    card = ModelCard(
        title=f"Duihua chat model, trained with {name}",
        stage="grpo",
        description="A policy trained on groups of its own replies, each judged against the others to its prompt.",
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


def show_comparison(stage: str, compared: Comparison) -> None:
    """The comparison as a table on the console."""
    before, after = compared.before, compared.after
    console.table(
        f"{stage}: {compared.gain.n} held-out prompts",
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


def say_rule(stage: str, rule: dict[str, Any]) -> None:
    """How many likeliest replies pass a rule, before and after, on the console."""
    before, after = rule["before"], rule["after"]
    console.say(
        f"{stage}: {rule['kind']}: {before['value']:.1%} of the likeliest replies pass before, {after['value']:.1%} after "
        f"(95 % interval {after['low']:.1%} to {after['high']:.1%}, {after['n']} held-out prompts)"
    )


__all__ = ["Loss", "run"]
