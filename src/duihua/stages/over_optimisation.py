"""Held-out figures while a policy is trained against a reward: the curve that shows when more reward stops being better.

A reward model is a proxy, and a policy that is pushed far enough finds what only the proxy likes: its score goes on rising
with the distance from the start while the judgement of anyone else turns down (Gao et al. 2023, "Scaling Laws for Reward Model
Overoptimization", figure 1). So every `trainer.evaluate_every` updates the policy answers prompts that it is not trained on;
beside the training reward stands the score of a judge (the input `judge`, else the gold reward of gold.py, else the rules that
are worked out, which nothing can outrun), and with `trainer.keep_best: heldout_judge` the checkpoint that the judge likes best
is the one that stays. Where there are both, the judge chooses and the gold reward shows how well. Where nobody but the trained
reward judges, the best step is the best by that reward, and the history says so.

The prompts are of the training part, but none of them is rolled out: so the prompts that are held out for the comparison at
the end have no part in the choice of the checkpoint either.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch

from duihua import console
from duihua.data.records import LeftOut
from duihua.engine.randomness import sample_seed
from duihua.errors import ConfigError
from duihua.evaluation.repetition import repetition_rate
from duihua.models.bundle import load_bundle
from duihua.models.decoder import Decoder
from duihua.stages.actor_critic import freeze
from duihua.stages.comparison import ComparisonSettings, log_ratios
from duihua.stages.configs.answering import RolloutConfig
from duihua.stages.gold import check_gold, gold_scorer
from duihua.stages.judging import FEWEST_PROMPTS, check_context, check_tokenizers, choose_prompts
from duihua.stages.replies import Prompt, Scorer, engine_sampler
from duihua.stages.scoring import Rule, reward_scorer
from duihua.text.chat_template import ChatTemplate
from duihua.text.tokenizer import Tokenizer
from duihua.training.metrics_file import best_step, read_metrics

if TYPE_CHECKING:
    from duihua.stages.policy_training import Start

WATCH_ITERATION = 2**31 + 5
"""Stands for the iteration in the seeds of these replies: no rollout has it, nor any comparison."""

KL = "heldout_kl"
JUDGE, REWARD, GOLD = "heldout_judge", "heldout_reward", "heldout_gold"


class HeldOutJudge(NamedTuple):
    """Whose score shows whether the reward is gamed. kind: a reward model of its own, a gold reward that is only measured, or
    the rules that the policy is trained on."""

    kind: Literal["reward_model", "gold", "rules"]
    scorer: Scorer


@dataclass(frozen=True)
class HeldOutMeter:
    """Measures `policy` as it now is. judge: None where nobody but the reward judges. gold: the gold reward beside a reward
    model that judges. It runs on one rank alone."""

    policy: Decoder
    reference: Decoder
    prompts: Sequence[Prompt]
    tokenizer: Tokenizer
    config: ComparisonSettings
    reward: Scorer
    judge: HeldOutJudge | None
    seed: int
    dtype: torch.dtype | None = None
    gold: Scorer | None = None

    def __call__(self, step: int) -> dict[str, float]:
        """The figures of an evaluation during training; always the same prompts and random numbers."""
        return self.of(self.policy)

    @torch.no_grad()
    def of(self, policy: Decoder) -> dict[str, float]:
        """{"heldout_reward", "heldout_kl", "heldout_length", ..., "heldout_judge", "heldout_gold" where known}: means."""
        config, prompts = self.config, self.prompts
        policy.eval()
        sample = engine_sampler(
            policy,
            self.tokenizer,
            reply_tokens=config.reply_tokens,
            temperature=config.temperature,
            slots=config.slots,
            dtype=self.dtype,
        )
        replies = sample(prompts, [sample_seed(self.seed, WATCH_ITERATION, prompt.index, 0) for prompt in prompts])
        ratios = log_ratios(policy, self.reference, prompts, replies, self.tokenizer.pad_id, config, self.dtype)
        found = {
            REWARD: float(self.reward(prompts, replies).mean()),
            KL: float(ratios.mean()),
            "heldout_length": sum(len(reply.ids) for reply in replies) / len(replies),
            "heldout_eos_rate": sum(reply.ended for reply in replies) / len(replies),
            "heldout_repetition": repetition_rate([self.tokenizer.decode(reply.ids) for reply in replies]),
        }
        if self.judge is not None:
            scores_n = self.judge.scorer(prompts, replies)
            found[JUDGE] = float(scores_n.nanmean() if self.judge.kind == "gold" else scores_n.mean())
        return found if self.gold is None else {**found, GOLD: float(self.gold(prompts, replies).nanmean())}

    def history(self, directory: Path, kept: int | None) -> dict[str, Any]:
        """{"rows": one an evaluation, the reference as step 0, "best_step", "best_by": the figure by which it is the best,
        "judge": the kind of judge or None, "kept_step", "prompts"}.

        kept: the step whose weights the bundle has; None for the last one.
        """
        rows: list[dict[str, float]] = [{"step": 0, **self.of(self.reference)}]
        for line in read_metrics(directory / "metrics.jsonl"):
            if KL in line and "learning_rate" not in line:
                rows.append({name: line[name] for name in ("step", *rows[0]) if name in line})
        by = REWARD if self.judge is None else JUDGE
        known = [row for row in rows if math.isfinite(row.get(by, math.nan))]
        best = max(known, key=lambda row: row[by], default=rows[0])
        return {
            "rows": rows,
            "best_step": best["step"],
            "best_by": by,
            "judge": self.judge.kind if self.judge else None,
            "kept_step": kept,
            "prompts": len(self.prompts),
        }


def held_out_judge(start: Start, config: RolloutConfig, gold: Scorer | None) -> HeldOutJudge | None:
    """The input "judge" where there is one, else the reward `gold`, else the rules that judge the rollouts; None for none.

    Raises ConfigError for a judge with too small a context, BundleError for one with another tokenizer.
    """
    context, policy = start.context, start.policy
    if "judge" in context.inputs:
        judge = load_bundle(context.inputs["judge"], context.device)
        check_tokenizers(policy.tokenizer, judge)
        check_context(start.stage, config.prompt_tokens, config.reply_tokens, [judge])
        freeze(judge.reward)
        return HeldOutJudge("reward_model", reward_scorer(judge, dtype=start.dtype))
    if gold is not None:
        return HeldOutJudge("gold", gold)
    return HeldOutJudge("rules", start.judge.scorer) if start.judge.rules else None


def held_out_meter(start: Start, config: RolloutConfig, gold: Rule | None = None) -> HeldOutMeter | None:
    """The meter of a stage that evaluates while it trains, None of one that does not. gold: a Python rule in place of the
    config's gold rules.

    Raises ConfigError where all prompts of the training part are rolled out or the gold rules can judge none, BundleError for a
    judge with another tokenizer.
    """
    context, policy = start.context, start.policy
    if gold is None:
        check_gold(start.stage, config.gold, start.train, "prompts to train on")
    if not config.trainer.evaluate_every:
        if "judge" in context.inputs:
            console.warn(f"{start.stage}: the judge is never asked; set trainer.evaluate_every")
        return None
    measured = gold_scorer(config.gold, gold, policy.tokenizer)
    judge = held_out_judge(start, config, measured)
    prompts = choose_prompts(
        start.stage,
        start.sources,
        config.sources,
        "train",
        len(start.train) + config.watch_prompts,
        config.prompt_tokens,
        ChatTemplate(policy.tokenizer),
        context.seed,
        LeftOut(),
        start.judge.problem,
    )[len(start.train) :]
    prompts = kept_aside(start, config.watch_prompts - len(prompts)) + prompts
    if len(prompts) < FEWEST_PROMPTS:
        raise ConfigError(
            f"{len(start.train)} prompts of the training part are too few to keep {FEWEST_PROMPTS} of them aside to measure on",
            where=f"{start.stage}.sources",
            remedy="Add conversations, or set trainer.evaluate_every to 0",
        )
    if gold is None:
        check_gold(start.stage, config.gold, prompts, "watch_prompts")
    return HeldOutMeter(
        policy.policy,
        start.reference,
        prompts,
        policy.tokenizer,
        config,
        start.judge.scorer,
        judge,
        context.seed,
        start.dtype,
        measured if judge and judge.kind == "reward_model" else None,
    )


def kept_aside(start: Start, lacking: int) -> list[Prompt]:
    """Where the sources have no other prompts than those to train on: some of these, at most a quarter, which are then not
    trained on."""
    count = min(lacking, len(start.train) // 4)
    if count <= 0:
        return []
    aside = start.train[-count:]
    del start.train[-count:]
    console.say(f"{start.stage}: {count} prompts are kept aside to measure on, {len(start.train)} are trained on")
    return aside


def over_optimisation(meter: HeldOutMeter | None, start: Start, config: RolloutConfig) -> dict[str, Any]:
    """{"over_optimisation": the meter's history} as it stands in result.json; nothing where nothing was measured."""
    if meter is None:
        return {}
    trainer, path = config.trainer, start.context.directory / "metrics.jsonl"
    steps = [int(line["step"]) for line in read_metrics(path)]
    kept = (
        best_step(path, trainer.keep_best, trainer.best_is == "highest", steps) if trainer.end_with == "best" else None
    )
    return {"over_optimisation": meter.history(start.context.directory, kept)}
