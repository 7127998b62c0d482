"""What PPO, GRPO and rejection sampling share: what they are given, how rollouts are learnt from, how they end.

Why one place: the three differ in what a reply is credited with and in nothing around it. Each starts from a policy and a
frozen copy of it, has the same kinds of judge and the same prompts, is compared before and after in the same way, and leaves
the same figures, so that one table holds them all. What is learnt stands in the stages; here is no loss.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from duihua import console
from duihua.data.records import LeftOut, Split
from duihua.data.source import Source
from duihua.models.bundle import Bundle, ModelCard, load_bundle, merge_terms, save_bundle
from duihua.models.decoder import Decoder, parameter_count
from duihua.nn.lora import twin
from duihua.stages.actor_critic import freeze, switch_off_dropout
from duihua.stages.comparison import compare, show_comparison
from duihua.stages.configs.answering import AnsweringConfig, RolloutConfig, usual_rate
from duihua.stages.configs.verifiable import RuleConfig
from duihua.stages.context import StageContext, StageResult
from duihua.stages.gold import gold_scorer
from duihua.stages.judging import Judge, check_context, choose_prompts, make_judge, rules_table, say_rule
from duihua.stages.left_out import say_left_out
from duihua.stages.low_rank import finish_lora
from duihua.stages.ppo_math import PolicyLoss
from duihua.stages.pretrain import source_terms
from duihua.stages.prompts import open_sources, require_stop_token
from duihua.stages.replies import Prompt, sampler_of, scored_in_parts
from duihua.stages.rollout import Rollout
from duihua.stages.scoring import Rule
from duihua.text.chat_template import ChatTemplate
from duihua.training.config import ScheduleConfig
from duihua.training.loss import Batch, Loss, TrainingResult
from duihua.training.precision import compute_dtype
from duihua.training.ranks import only_first_goes_on
from duihua.training.trainer import Trainer

TOO_FAST = 5.0
"""Times the usual learning rate from which on a run is warned."""

R = TypeVar("R", bound=Rollout)


@dataclass(frozen=True)
class Start:
    """A stage before its first reply. policy: what is trained; reference: the same weights, frozen. left_out: prompts of both
    splits that are not used. dtype: of the products, None for fp32. started: by time.monotonic."""

    stage: str
    config: AnsweringConfig
    context: StageContext
    policy: Bundle
    reference: Decoder
    judge: Judge
    sources: list[Source]
    train: list[Prompt]
    heldout: list[Prompt]
    left_out: LeftOut
    dtype: torch.dtype | None
    started: float

    def say(self, about: str) -> None:
        """What begins, on the console."""
        console.say(f"{self.stage}: {about}{len(self.train):,} prompts to train on, {len(self.heldout):,} held out")
        say_left_out(self.stage, "prompts", self.left_out.counts)


def begin(
    stage: str,
    config: AnsweringConfig,
    context: StageContext,
    *,
    rules: Sequence[RuleConfig] | None = None,
    reward: Rule | None = None,
    check: Callable[[Bundle, Judge], None] = lambda policy, judge: None,
) -> Start:
    """Load policy, reference and judge and choose the prompts, once everything is known to fit.

    rules, reward: as in `make_judge`. check: what the stage itself asks of the two. Raises ConfigError, DataError, BundleError.
    """
    started = time.monotonic()
    if context.threads:
        torch.set_num_threads(context.threads)
    dtype = compute_dtype(config.trainer.precision, context.device)
    policy = load_bundle(context.input("policy"), context.device)
    template = ChatTemplate(policy.tokenizer)
    require_stop_token(template, str(policy.directory))
    judge = make_judge(stage, rules, context, policy.tokenizer, dtype, reward)
    check_context(stage, config.prompt_tokens, config.reply_tokens, [policy, judge.bundle])
    check(policy, judge)
    reference = twin(policy.policy) if config.lora else load_bundle(policy.directory, context.device).policy
    freeze(reference)
    if judge.bundle:
        freeze(judge.bundle.reward)
    sources = open_sources(config.sources, context.data_directory, "conversations", f"{stage}.sources")
    left_out = LeftOut()

    def chosen(split: Split, count: int) -> list[Prompt]:
        return choose_prompts(
            stage, sources, config.sources, split, count, config.prompt_tokens, template, context.seed, left_out,
            judge.problem,
        )  # fmt: skip

    train, heldout = chosen("train", config.train_prompts), chosen("heldout", config.heldout_prompts)
    return Start(stage, config, context, policy, reference, judge, sources, train, heldout, left_out, dtype, started)


def rollout_of(kind: type[R], start: Start, network: nn.Module, config: RolloutConfig, gold: Rule | None) -> R:
    """The rollout of `network` (an actor, with or without a critic), on the stage's device and without dropout.

    gold: a rule in Python that is only measured, in place of the config's gold rules.
    """
    judge, tokenizer, context = start.judge, start.policy.tokenizer, start.context
    measured = gold_scorer(config.gold, gold, tokenizer)
    switch_off_dropout(network, start.reference, *([judge.bundle.reward] if judge.bundle else []))
    network.to(context.device)
    return kind(
        network,  # type: ignore[arg-type]
        start.reference,
        scored_in_parts(judge.scorer),
        sampler_of(start.policy, config, start.dtype),
        start.train,
        tokenizer,
        config,  # type: ignore[arg-type]
        seed=context.seed,
        directory=context.directory,
        gold=scored_in_parts(measured) if measured else None,
        dtype=start.dtype,
    )


def learn_from(
    rollout: Rollout,
    start: Start,
    config: RolloutConfig,
    loss: Loss,
    evaluate: Callable[[int], Mapping[str, float]] | None = None,
) -> TrainingResult:
    """All updates, at a rate that falls linearly; of several ranks the first one comes back. evaluate: as the Trainer's."""
    warn_of_rate(start.stage, config, parameter_count(start.policy.policy))
    trained = Trainer(
        rollout.network,
        loss,
        rollout,
        steps=config.steps,
        optimizer=config.optimizer,
        schedule=ScheduleConfig(kind="linear", warmup_steps=0),
        config=config.trainer,
        directory=start.context.directory,
        device=start.context.device,
        seed=start.context.seed,
        evaluate=evaluate,
        label=start.stage,
    ).run()
    only_first_goes_on()
    return trained


def warn_of_rate(stage: str, config: RolloutConfig, parameters: int) -> None:
    """Say where a rate for a small model meets a large one: it leaves the budget of KL within a few updates."""
    optimizer, usual = config.optimizer, usual_rate(parameters)
    if config.lora is None and optimizer.kind in ("adamw", "adam") and optimizer.learning_rate > TOO_FAST * usual:
        console.warn(
            f"{stage}: a learning rate of {optimizer.learning_rate:g} is {optimizer.learning_rate / usual:.0f} times what is "
            f"usual for {parameters / 1e6:,.0f} million parameters (about {usual:.1g}); set optimizer.learning_rate"
        )


def reply_sum(values_br: Tensor, mask_br: Tensor) -> Tensor:
    """The sum over the reply tokens; prompt tokens and pads earn nothing and cost nothing."""
    return torch.where(mask_br, values_br, torch.zeros_like(values_br)).sum()


def update_metrics(
    rollout: Rollout, batch: Batch, policy: PolicyLoss, further: Mapping[str, Tensor]
) -> dict[str, tuple[float, float]]:
    """What is logged of a micro-batch, as (sum, reply tokens), and told to the rollout: the clipped objective, what the stage
    adds per token (`further`, detached), and the figures of the rollout that it learns from."""
    mask = batch["reply_mask"]
    tokens = float(mask.sum())
    per_token = {
        "policy_loss": policy.loss.detach(),
        **further,
        "approximate_kl": policy.approximate_kl,
        "ratio": policy.ratio,
        "clip_fraction": policy.clipped.float(),
    }
    sums = {name: float(reply_sum(values_br, mask)) for name, values_br in per_token.items()}
    rollout.observe(sums["approximate_kl"], tokens)
    metrics = {name: (value, tokens) for name, value in sums.items()}
    for name, figure in zip(rollout.metrics, batch["rollout"].tolist(), strict=True):
        if not math.isnan(figure):  # a gold score that is not known is not logged
            metrics[name] = (figure * tokens, tokens)
    return metrics


def finish(
    start: Start,
    trained: TrainingResult,
    facts: Mapping[str, Any],
    *,
    title: str,
    description: str,
    kl_coefficient: float | None = None,
) -> StageResult:
    """Compare the policy with its reference, write bundle and result. facts: what the stage adds to the result.

    title, description: of the model card. kl_coefficient: as in `compare`.
    """
    stage, config, context, policy, judge = start.stage, start.config, start.context, start.policy, start.judge
    own_terms = merge_terms(judge.bundle.terms if judge.bundle else [], source_terms(start.sources))
    adapted = (
        finish_lora(policy.policy, config.lora, policy, context.directory, stage, own_terms) if config.lora else {}
    )
    compared = compare(
        start.reference,
        policy.policy,
        judge.scorer,
        start.heldout,
        policy.tokenizer,
        config,
        seed=context.seed,
        kl_coefficient=kl_coefficient,
        dtype=start.dtype,
    )
    terms = merge_terms(policy.terms, own_terms)
    metrics: dict[str, Any] = {
        **adapted,
        "steps": trained.steps,
        "skipped_steps": trained.skipped_steps,
        **facts,
        **compared.to_mapping(config.samples),
        **rules_table(
            judge.rules, start.reference, policy.policy, start.heldout, policy.tokenizer, config.reply_tokens
        ),
        "prompts": {
            "train": len(start.train),
            "heldout": len(start.heldout),
            "heldout_by_source": dict(Counter(prompt.source for prompt in start.heldout)),
        },
        "left_out": start.left_out.to_mapping(),
        "last_update": trained.last_metrics,
        "terms": [dict(row) for row in terms],
        "training_seconds": trained.seconds,
        "seconds": time.monotonic() - start.started,
    }
    show_comparison(stage, compared)
    for rule in metrics.get("rules", []):
        say_rule(stage, rule)
    card = ModelCard(
        title=title,
        stage=stage,
        description=description,
        terms=terms,
        metrics={
            "reward gain on held-out prompts": compared.gain.value,
            "its standard error": compared.gain.standard_error,
            "KL from the reference, nats a reply": compared.kl,
        },
        prompts=policy.prompts,
    )
    save_bundle(context.directory, policy.policy, policy.tokenizer, card)
    result = StageResult(context.directory, metrics)
    result.save(context.directory)
    return result
