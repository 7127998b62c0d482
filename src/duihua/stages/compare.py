"""All models of a run on the same held-out prompts: who wins against whom, and at what distance from where they started.

Each model answers every prompt once, from the same random numbers. A judge that nothing was trained against, a reward model
that learnt from other pairs (`half` of the reward stage) or rules, compares the replies blind and in both orders
(blind.py); a reward model that a policy was trained against would praise whatever that policy found out about it (Gao et al.
2023, "Scaling Laws for Reward Model Overoptimization"). Best-of-n stands in the table too: the fine-tuned model's replies
among which the training reward chooses, a policy whose price in KL is known beforehand (best_of_n.py).

All models start from the fine-tuned one, so that is what their KL, length and repetition are measured against. The base
model has never met the chat template: it goes on with plain text and its first line is its reply.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch

from duihua import console
from duihua.data.records import LeftOut
from duihua.engine.randomness import sample_seed
from duihua.engine.settings import SamplingSettings
from duihua.errors import ConfigError
from duihua.models.bundle import Bundle, load_bundle
from duihua.models.weights import weights_fingerprint
from duihua.stages.best_of_n import sample_candidates
from duihua.stages.compare_tables import (
    Candidate,
    Written,
    against,
    best_of_curve,
    frontier,
    matrix,
    remembered,
    time_machine,
    worse,
)
from duihua.stages.comparison import log_ratios
from duihua.stages.configs.compare import CompareConfig
from duihua.stages.context import RESULT_FILE, StageContext, StageResult
from duihua.stages.evaluate import messages_of
from duihua.stages.held_out import plain_prompts
from duihua.stages.held_out import replies as engine_replies
from duihua.stages.judging import Judge, check_context, check_tokenizers, choose_prompts
from duihua.stages.left_out import say_left_out
from duihua.stages.prompts import open_sources
from duihua.stages.replies import Prompt, Reply, Scorer, replies_key, sampler_of, stored_replies
from duihua.stages.scoring import reward_scorer
from duihua.stages.verifiable import cannot_judge, verifiable_scorer
from duihua.text.chat_template import ChatTemplate
from duihua.text.tokenizer import Tokenizer

REFERENCE = "sft"
TRAINED = ("rejection_sampling", "dpo", "grpo", "ppo")
"""Inputs that started from the fine-tuned model, in the order of the table."""
ITERATION = 2**31 + 3
"""Stands for the iteration in the seeds of these replies: no rollout has it, nor any other comparison."""


def run(config: CompareConfig, context: StageContext) -> StageResult:
    """Compare the inputs "base", "sft" and those of TRAINED that are given; "judge" judges, "reward" chooses for best-of-n.

    Raises ConfigError (no judge, nothing to compare), DataError, BundleError.
    """
    started = time.monotonic()
    if context.threads:
        torch.set_num_threads(context.threads)
    sft = load_bundle(context.input(REFERENCE), context.device)
    judge, reward = make_judges(config, context, sft.tokenizer)
    roles = [role for role in TRAINED if role in context.inputs]
    best_of = config.best_of if reward is not None else 0
    if not roles and not best_of and "base" not in context.inputs:
        raise ConfigError(
            "there is one model, and nothing to compare it with",
            where="compare",
            remedy="Give another one as an input (" + ", ".join(TRAINED) + "), or a reward model for best-of-n",
        )
    check_context("compare", config.prompt_tokens, config.reply_tokens, [sft, judge.bundle, reward])
    for role in roles:  # before any of them writes a reply
        check_context("compare", config.prompt_tokens, config.reply_tokens, [load_policy(role, context, sft)])
    left_out, template = LeftOut(), ChatTemplate(sft.tokenizer)
    prompts = choose_prompts(
        "compare",
        open_sources(config.sources, context.data_directory, "conversations", "compare.sources"),
        config.sources,
        "heldout",
        config.prompts,
        config.prompt_tokens,
        template,
        context.seed,
        left_out,
        judge.problem,
    )
    room = min(one.config.context for one in (sft, judge.bundle, reward) if one) - config.reply_tokens - 1
    shown = sample_prompts(config, template, room, left_out)
    console.say(f"compare: {len(prompts):,} held-out prompts, {', '.join([REFERENCE, *roles])}")
    say_left_out("compare", "prompts", left_out.counts)
    scorer = remembered(judge.scorer)
    rewards = remembered(reward_scorer(reward)) if reward is not None else None
    written: dict[str, Written] = {}
    samples: dict[str, list[str]] = {}
    curve: list[dict[str, float]] = []

    def keep(name: str, replies: list[Reply], kl: list[float] | float | None) -> None:
        texts = [sft.tokenizer.decode(reply.ids).strip() for reply in replies]
        scores = rewards(prompts, replies).tolist() if rewards is not None else None
        written[name] = Written(replies, texts, scorer(prompts, replies).tolist(), scores, kl)

    if "base" in context.inputs:
        base = load_bundle(context.inputs["base"], context.device)
        keep("base", first_lines(base, sft.tokenizer, prompts, config, context.seed, config.temperature), None)
        lines = first_lines(base, sft.tokenizer, shown, config, context.seed, config.sample_temperature)
        samples["base"] = [sft.tokenizer.decode(reply.ids).strip() for reply in lines]
    for role in [REFERENCE, *roles]:
        bundle = sft if role == REFERENCE else load_policy(role, context, sft)
        keep(role, asked(bundle, prompts, config, context, role), 0.0)
        samples[role] = texts_of(bundle, shown, config, context.seed)
        if role != REFERENCE:
            ratios = log_ratios(
                bundle.policy, sft.policy, prompts, written[role].replies, sft.tokenizer.pad_id, config
            ).tolist()
            written[role] = replace(written[role], kl=ratios)
        elif best_of and rewards is not None:
            chosen = best_replies(sft, prompts, config, context, rewards, scorer)
            keep("best_of_n", chosen.replies, chosen.kl)
            curve = best_of_curve(chosen)
            few = replace(config, temperature=config.sample_temperature or config.temperature)
            samples["best_of_n"] = [
                sft.tokenizer.decode(reply.ids).strip()
                for reply in best_replies(sft, shown, few, context, rewards, None).replies
            ] if shown else []  # fmt: skip
    names = list(written)
    metrics: dict[str, Any] = {
        "models": names,
        "reference": REFERENCE,
        "best_of": best_of,
        "judge": "reward" if judge.bundle else "rules",
        "judge_is_the_training_reward": same_model(judge.bundle, reward),
        "judge_accuracy": known_accuracy(judge.bundle),
        "matrix": matrix(prompts, written, scorer, context.seed),
        "against_reference": against(prompts, written, REFERENCE, scorer, context.seed),
        "frontier": frontier(written, REFERENCE, curve),
        "worse": worse(prompts, written, REFERENCE, config.worse),
        "time_machine": time_machine(shown, samples),
        "prompts": {language: sum(p.language == language for p in prompts) for language in ("en", "zh")},
        "temperature": config.temperature,
        "sample_temperature": config.sample_temperature,
        "left_out": left_out.to_mapping(),
        "seconds": time.monotonic() - started,
    }
    show(metrics)
    result = StageResult(None, metrics)
    result.save(context.directory)
    return result


def make_judges(config: CompareConfig, context: StageContext, tokenizer: Tokenizer) -> tuple[Judge, Bundle | None]:
    """Who compares, and the reward model that chooses for best-of-n, where there is one. ConfigError where nobody compares."""
    reward = load_bundle(context.inputs["reward"], context.device) if "reward" in context.inputs else None
    if reward is not None:
        check_tokenizers(tokenizer, reward)
    if "judge" in context.inputs:
        bundle = load_bundle(context.inputs["judge"], context.device)
        check_tokenizers(tokenizer, bundle)
        if same_model(bundle, reward):
            console.warn("compare: the judge is the reward model that was trained against: its verdicts prove little")
        return Judge(reward_scorer(bundle), bundle), reward
    if config.rules:
        return Judge(
            verifiable_scorer(config.rules, tokenizer), rules=config.rules, problem=cannot_judge(config.rules)
        ), reward
    raise ConfigError(
        "there is nothing that judges",
        where="compare",
        remedy="Give a reward model that no policy was trained against as the input `judge`, or set rules",
    )


def same_model(judge: Bundle | None, reward: Bundle | None) -> bool:
    """Whether both are one and the same reward model, by their weights."""
    if judge is None or reward is None:
        return False
    first, second = (weights_fingerprint(bundle.directory) for bundle in (judge, reward))
    return first == second


def known_accuracy(judge: Bundle | None) -> dict[str, Any] | None:
    """The held-out accuracy that the reward stage measured of the judge, where the bundle lies in that stage's folder."""
    if judge is None or not (judge.directory / RESULT_FILE).is_file():
        return None
    found: dict[str, Any] | None = StageResult.load(judge.directory).metrics.get("accuracy")
    return found


def load_policy(role: str, context: StageContext, sft: Bundle) -> Bundle:
    """An input that started from the fine-tuned model. BundleError for another tokenizer."""
    bundle = load_bundle(context.inputs[role], context.device)
    check_tokenizers(
        sft.tokenizer,
        bundle,
        "has another tokenizer than the fine-tuned model",
        "Compare models that started from the same one",
    )
    return bundle


def asked(
    bundle: Bundle, prompts: list[Prompt], config: CompareConfig, context: StageContext, label: str
) -> list[Reply]:
    """One reply to each prompt, kept in the stage's folder so that an interrupted comparison goes on."""
    seeds = [sample_seed(context.seed, ITERATION, prompt.index, 0) for prompt in prompts]
    key = replies_key(bundle, config)
    return stored_replies(sampler_of(bundle, config), prompts, seeds, context.directory / "replies", key, label)


def best_replies(
    sft: Bundle,
    prompts: list[Prompt],
    config: CompareConfig,
    context: StageContext,
    rewards: Scorer,
    scorer: Scorer | None,
) -> Candidate:
    """Of several replies to each prompt the one that the reward likes best. scorer: judges all of them, for the curve."""
    label = f"best-of-{config.best_of}-{config.temperature:g}"
    found = sample_candidates(
        sampler_of(sft, config), rewards, prompts, config.best_of, context.seed, context.directory / label,
        replies_key(sft, config),
    )  # fmt: skip
    return Candidate.of(found, scorer)


def first_lines(
    base: Bundle, tokenizer: Tokenizer, prompts: list[Prompt], config: CompareConfig, seed: int, temperature: float
) -> list[Reply]:
    """What the base model writes in the line after the prompt's, as a reply that ends."""
    ids = plain_prompts([prompt.messages for prompt in prompts], base.tokenizer)
    room = base.config.context - config.reply_tokens
    settings = SamplingSettings(temperature=temperature, max_new_tokens=config.reply_tokens)
    seeds = [sample_seed(seed, ITERATION, prompt.index, 0) for prompt in prompts]
    made = engine_replies(base.policy, base.tokenizer, [one[-room:] for one in ids], settings, seeds)
    lines = [(completion.text.strip().splitlines() or [""])[0].strip() for completion in made]
    rows = [tokenizer.encode(line)[: config.reply_tokens - 1] for line in lines]
    return [Reply([*row, tokenizer.im_end_id], [], True) for row in rows]


def sample_prompts(config: CompareConfig, template: ChatTemplate, room: int, left_out: LeftOut) -> list[Prompt]:
    """The prompts that are shown, numbered behind all others; those of more than `room` tokens are counted."""
    shown = []
    for place, one in enumerate(config.sample_prompts):
        messages = messages_of(one)
        ids = template.encode(messages, add_generation_prompt=True).ids
        if len(ids) > room:
            left_out.add("sample prompt too long", "sample_prompts")
        else:
            shown.append(Prompt(2**20 + place, messages, ids, "", one.language))
    return shown


def texts_of(bundle: Bundle, shown: list[Prompt], config: CompareConfig, seed: int) -> list[str]:
    """The replies that are shown."""
    settings = SamplingSettings(temperature=config.sample_temperature, max_new_tokens=config.reply_tokens)
    seeds = [sample_seed(seed, ITERATION, prompt.index, 0) for prompt in shown]
    made = engine_replies(bundle.policy, bundle.tokenizer, [prompt.ids for prompt in shown], settings, seeds)
    return [completion.text.strip() for completion in made]


def show(metrics: dict[str, Any]) -> None:
    """The table against the fine-tuned model on the console."""
    rows = []
    for name, found in metrics["against_reference"].items():
        rate, kl = found["win_rate"], found["kl_nats"]
        rows.append(
            [
                name, rate["value"], rate["low"], rate["high"], found["judge_gain"]["value"],
                "" if kl is None else kl, found["length"]["after"], found["repetition_rate"]["after"],
                found["eos_rate"]["after"],
            ]
        )  # fmt: skip
    columns = ["model", f"wins over {REFERENCE}", "low", "high", "gain", "KL (nats)", "length", "repetition", "ended"]
    console.table("compare: judged blind, in both orders", columns, rows)


__all__ = ["run"]
