"""The pairs of a stage, from its settings to rows of ids, said and counted: the first half of reward model and DPO alike.

Both learn from the same pairs (reward_pairs.py says which) and sample the replies in them from the policy that they start
from. What is left out or cut is said with its reason, since a corpus of which nothing fits looks like one that teaches nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch

from duihua import console
from duihua.data.source import Source
from duihua.models.bundle import Bundle, load_bundle
from duihua.stages.configs.pairs import PairsConfig
from duihua.stages.context import StageContext
from duihua.stages.judging import check_tokenizers
from duihua.stages.left_out import say_left_out
from duihua.stages.prompts import open_sources
from duihua.stages.replies import alternating, replies_key, sampler_of
from duihua.stages.reward_pairs import PairData, PairMaker, kind_text, nothing_to_learn
from duihua.text.chat_template import ChatTemplate


class Prepared(NamedTuple):
    """The pairs of both splits, the sources that they come from, and the other model that wrote replies."""

    data: PairData
    judged: list[Source]
    conversations: list[Source]
    other: Bundle | None


def prepare_pairs(
    stage: str,
    config: PairsConfig,
    context: StageContext,
    policy: Bundle,
    length: int,
    dtype: torch.dtype | None,
    *,
    normalising: int = 0,
    verifying: int = 0,
    open_ends: bool = False,
    further: int = 0,
) -> Prepared:
    """Pairs of at most `length` tokens; replies are sampled from `policy` and kept in the stage's folder while it goes on. Of
    every second pair the input "other" writes the sampled reply, where there is one.

    normalising, verifying, open_ends: as in `PairMaker`. further: pairs that the stage makes itself, so that none here is no
    fault. Raises ConfigError, BundleError, and DataError where no pair is left.
    """
    judged = open_sources(config.preferences, context.data_directory, "preferences", f"{stage}.preferences")
    conversations = open_sources(
        config.conversations, context.data_directory, "conversations", f"{stage}.conversations"
    )
    sampler, key = sampler_of(policy, config, dtype), replies_key(policy, config, dtype)
    rejected, other = None, None
    if "other" in context.inputs:
        other = load_bundle(context.inputs["other"], context.device)
        check_tokenizers(
            policy.tokenizer,
            other,
            "the other model has another tokenizer than the policy",
            "Name a model that was made from the same pre-training",
        )
        rejected = alternating([sampler, sampler_of(other, config, dtype)]), key + replies_key(other, config, dtype)
    maker = PairMaker(
        config,
        ChatTemplate(policy.tokenizer),
        length,
        sampler,
        context.directory / "replies",
        key,
        context.seed,
        stage,
        open_ends,
        rejected,
    )
    wanted = config.sampled_pairs + config.off_topic_pairs + normalising + verifying + further
    data = maker.make(judged, conversations if wanted else [], normalising, verifying)
    say_counts(stage, data)
    if not data.train and not further:
        raise nothing_to_learn(data.left_out["train"], stage)
    if not data.heldout:
        console.warn(f"{stage}: no pair is held out, so nothing is measured on unseen ones")
    return Prepared(data, judged, conversations, other)


def say_counts(stage: str, data: PairData) -> None:
    """What there is to learn from and what was left out, on the console."""
    counts = data.counts()
    console.say(
        f"{stage}: training pairs: {kinds_text(counts['train'])}; held-out pairs: {kinds_text(counts['heldout'])}"
    )
    for split, left_out in data.left_out.items():
        say_left_out(stage, split, left_out.counts)
        for reason, count in data.cut[split].counts.most_common():
            console.say(f"{stage}: {split}: {count:,} x {reason}")


def kinds_text(counts: Mapping[str, int]) -> str:
    """`1,200 human, 300 off-topic`: the kinds that there are."""
    return ", ".join(f"{count:,} {kind_text(kind)}" for kind, count in counts.items() if count) or "none"
