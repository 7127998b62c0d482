"""Pairs out of the policy's own replies: of several to a prompt the best and the worst, by a reward model.

Why: a person's reply against a sampled one says mostly how a person writes, and DPO on such pairs leaves the policy's own
distribution for theirs. Two replies of the policy itself differ in what the reward model was trained to see, and lie where the
policy already is; with a reward model at hand DPO learns from them what best-of-n chooses (Liu et al. 2024, "Statistical
Rejection Sampling Improves Preference Optimization"; Pace et al. 2024, "West-of-N").
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from duihua import console
from duihua.data.records import LeftOut
from duihua.data.source import Source
from duihua.errors import ConfigError
from duihua.models.bundle import Bundle
from duihua.stages.best_of_n import Candidates, sample_candidates
from duihua.stages.configs.dpo import DPOConfig
from duihua.stages.encoded_pairs import Pair
from duihua.stages.judging import choose_prompts
from duihua.stages.replies import Prompt, Reply, replies_key, sampler_of, scored_in_parts
from duihua.stages.scoring import reward_scorer
from duihua.text.chat_template import ChatTemplate

RANKED = "ranked"


def check_ranking(config: DPOConfig, judge: Bundle | None) -> None:
    """ConfigError where pairs are to be ranked and nothing ranks them."""
    if config.ranked_pairs and (judge is None or not config.conversations):
        raise ConfigError(
            "there is nothing that ranks replies" if judge is None else "there are no prompts for ranked replies",
            where="dpo.ranked_pairs",
            remedy="Give a reward model as the input `reward`" if judge is None else "Name `conversations`",
        )


def ranked_pairs(
    config: DPOConfig,
    policy: Bundle,
    judge: Bundle,
    conversations: Sequence[Source],
    folder: Path,
    seed: int,
    dtype: torch.dtype | None,
    left_out: LeftOut,
) -> list[Pair]:
    """Up to `config.ranked_pairs` pairs, one a training prompt; replies are kept in `folder` while they are made. What gives no
    pair is counted in `left_out`. Raises DataError where there are next to no prompts."""
    template = ChatTemplate(policy.tokenizer)
    prompts = choose_prompts(
        "dpo", conversations, config.conversations, "train", config.ranked_pairs, config.prompt_tokens, template, seed, left_out
    )  # fmt: skip
    found = sample_candidates(
        sampler_of(policy, config, dtype),
        scored_in_parts(reward_scorer(judge, dtype=dtype)),
        prompts,
        config.ranked_candidates,
        seed,
        folder,
        replies_key(policy, config, dtype),
    )
    pairs = pairs_of(found, left_out)
    curve = found.curve()
    console.say(
        f"dpo: {len(pairs)} ranked pairs of {len(prompts)} prompts x {config.ranked_candidates}; mean reward "
        f"{curve[0]['reward']:+.3f}, of the best {curve[-1]['reward']:+.3f}"
    )
    return pairs


def pairs_of(found: Candidates, left_out: LeftOut) -> list[Pair]:
    """The best reply of each prompt that ended against the worst of all; none where no reply ended or all are liked alike."""
    pairs = []
    for prompt, replies, scores, best in zip(
        found.prompts, found.replies, found.scores_pn.tolist(), found.best(ended_only=True), strict=True
    ):
        worst = min(range(len(scores)), key=lambda place: scores[place])
        if best is None:
            left_out.add("no sampled reply ended", prompt.source)
        elif not scores[worst] < scores[best]:
            left_out.add("all sampled replies are liked alike", prompt.source)
        else:
            pairs.append(_pair(prompt, replies[best], replies[worst]))
    return pairs


def _pair(prompt: Prompt, chosen: Reply, rejected: Reply) -> Pair:
    """The ids as they were sampled: a reply that was broken off has no stop token here either."""
    return Pair(
        [*prompt.ids, *chosen.ids],
        [*prompt.ids, *rejected.ids],
        RANKED,
        len(chosen.ids),
        len(rejected.ids),
        prompt.source,
        prompt.language,
    )
