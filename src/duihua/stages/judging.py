"""Who judges the replies of an alignment stage, and whether everything fits before any reply is written.

A judge is a reward bundle, a list of rules that are worked out, or a rule in Python. All three become one `Scorer`, so
that GRPO, rejection sampling and best-of-n do not ask which it is. Prompts that the judge cannot judge, or that are too
long, are left out here and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from duihua import console
from duihua.data.pairs import Exchange, count_by_source
from duihua.data.records import LeftOut, Split
from duihua.data.source import Source, SourceConfig
from duihua.engine.settings import SamplingSettings
from duihua.errors import BundleError, ConfigError, DataError
from duihua.evaluation.intervals import wilson
from duihua.models.bundle import Bundle, load_bundle
from duihua.models.decoder import Decoder
from duihua.stages.configs.verifiable import RuleConfig
from duihua.stages.context import StageContext
from duihua.stages.held_out import replies
from duihua.stages.prompts import draw_exchanges, exchange_order, make_prompt
from duihua.stages.replies import Prompt, Scorer
from duihua.stages.scoring import Rule, reward_scorer, rule_scorer
from duihua.stages.verifiable import cannot_judge, passes, verifiable_scorer
from duihua.text.chat_template import ChatTemplate
from duihua.text.tokenizer import Tokenizer

FEWEST_PROMPTS = 4


@dataclass(frozen=True)
class Judge:
    """scorer: judges replies. bundle: the reward model, where it is one. rules: what is worked out, where that judges. problem:
    why it cannot judge replies to a prompt, None where it judges all."""

    scorer: Scorer
    bundle: Bundle | None = None
    rules: Sequence[RuleConfig] = ()
    problem: Callable[[Exchange], str] | None = None


def make_judge(
    stage: str,
    rules: Sequence[RuleConfig] | None,
    context: StageContext,
    tokenizer: Tokenizer,
    dtype: torch.dtype | None,
    reward: Rule | None = None,
) -> Judge:
    """The Python rule `reward` if given, else `rules` if there are any, else the input "reward". rules: None for a stage that
    knows none.

    Raises ConfigError where there is none of the three, BundleError for a reward model with another tokenizer.
    """
    if reward is not None:
        return Judge(rule_scorer(reward, tokenizer))
    if rules:
        if "reward" in context.inputs:
            console.say(f"{stage}: the rules judge the replies; the reward model is not read")
        return Judge(verifiable_scorer(rules, tokenizer), rules=rules, problem=cannot_judge(rules))
    if rules is not None and "reward" not in context.inputs:
        raise ConfigError(
            "there is nothing that judges the replies",
            where=stage,
            remedy="Give a reward model as the input `reward`, or set rules, such as rules: [{kind: arithmetic}]",
        )
    bundle = load_bundle(context.input("reward"), context.device)
    check_tokenizers(tokenizer, bundle)
    return Judge(reward_scorer(bundle, dtype=dtype), bundle)


def check_tokenizers(
    tokenizer: Tokenizer,
    other: Bundle,
    problem: str = "the reward model has another tokenizer than the policy",
    remedy: str = "Train the reward model from this policy's SFT bundle",
) -> None:
    """BundleError, in these words, unless the other bundle reads and writes the same ids; without words for a reward model."""
    if other.tokenizer.fingerprint != tokenizer.fingerprint:
        raise BundleError(problem, where=str(other.directory), remedy=remedy)


def check_context(stage: str, prompt_tokens: int, reply_tokens: int, bundles: Sequence[Bundle | None]) -> None:
    """ConfigError where prompt, reply and the stop token that closes a cut reply do not fit a model's context."""
    needed = prompt_tokens + reply_tokens + 1
    for bundle in bundles:
        if bundle is not None and needed > bundle.config.context:
            raise ConfigError(
                f"prompt_tokens {prompt_tokens} and reply_tokens {reply_tokens} need a context of {needed}, "
                f"{bundle.directory} has {bundle.config.context}",
                where=f"{stage}.prompt_tokens",
                remedy="Lower prompt_tokens or reply_tokens",
            )


def choose_prompts(
    stage: str,
    sources: Sequence[Source],
    configs: Sequence[SourceConfig],
    split: Split,
    count: int,
    prompt_tokens: int,
    template: ChatTemplate,
    seed: int,
    left_out: LeftOut,
    unfit: Callable[[Exchange], str] | None = None,
) -> list[Prompt]:
    """Up to `count` prompts of a split that are short enough and, by `unfit`, can be judged; DataError where there are next to
    none."""

    def problem(exchange: Exchange) -> str:
        tokens = len(template.encode(exchange.prompt, add_generation_prompt=True).ids)
        return (
            f"prompt longer than {prompt_tokens} tokens" if tokens > prompt_tokens else unfit(exchange) if unfit else ""
        )

    chosen = draw_exchanges(exchange_order(sources, configs, split, seed, left_out), count, problem, left_out)
    if len(chosen) < FEWEST_PROMPTS:
        reasons = ", ".join(reason for reason, _ in left_out.counts.most_common(2))
        judged = " that can be judged" if unfit else ""
        raise DataError(
            f"{len(chosen)} {split} prompts of at most {prompt_tokens} tokens{judged}, at least "
            f"{FEWEST_PROMPTS} are needed" + (f" ({reasons})" if reasons else ""),
            where=f"{stage}.sources",
            remedy="Add conversations, raise prompt_tokens or change the rules"
            if unfit
            else "Add conversations or raise prompt_tokens",
        )
    if len(chosen) < count:
        found = ", ".join(f"{number:,} of {name}" for name, number in count_by_source(chosen).items())
        console.say(f"{stage}: the sources have {len(chosen):,} {split} prompts ({found}), {count:,} were asked for")
    return [make_prompt(exchange, index, template) for index, exchange in enumerate(chosen)]


def rules_table(
    rules: Sequence[RuleConfig],
    before: Decoder,
    after: Decoder,
    prompts: Sequence[Prompt],
    tokenizer: Tokenizer,
    reply_tokens: int,
) -> dict[str, Any]:
    """{"rules": [{kind, before, after}, ...]}: the share of held-out prompts whose likeliest reply passes each rule, with
    Wilson's interval. Empty where there are no rules."""
    if not rules:
        return {}
    settings = SamplingSettings(temperature=0.0, max_new_tokens=reply_tokens)
    texts = [
        [reply.text for reply in replies(network, tokenizer, [prompt.ids for prompt in prompts], settings)]
        for network in (before, after)
    ]

    def share(rule: RuleConfig, written: Sequence[str]) -> dict[str, Any]:
        right = sum(passes(rule, p.messages, p.answer, text) for p, text in zip(prompts, written, strict=True))
        return wilson(right, len(written)).to_dict()

    return {
        "rules": [
            {"kind": rule.kind, "weight": rule.weight, "before": share(rule, texts[0]), "after": share(rule, texts[1])}
            for rule in rules
        ]
    }


def say_rule(stage: str, rule: Mapping[str, Any]) -> None:
    """A row of `rules_table` on the console: how many likeliest replies pass a rule, before and after."""
    before, after = rule["before"], rule["after"]
    console.say(
        f"{stage}: {rule['kind']}: {before['value']:.1%} of the likeliest replies pass before, {after['value']:.1%} after "
        f"(95 % interval {after['low']:.1%} to {after['high']:.1%}, {after['n']} held-out prompts)"
    )
