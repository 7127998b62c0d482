"""The policy before and after alignment (PPO, GRPO, DPO, ...) on the same held-out prompts, with the same random numbers.

Why paired: prompts differ in how well they can be answered far more than policies do, so the gain is the mean difference
prompt by prompt, and its standard error is that of the differences. Why the bare score: the reward here is the reward
model's alone, without the penalty for replies that do not end and without the KL penalty; those stand beside it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from duihua import console
from duihua.engine.randomness import sample_seed
from duihua.evaluation.intervals import PairedMean, paired_mean
from duihua.evaluation.repetition import repetition_rate
from duihua.models.decoder import Decoder
from duihua.stages.actor_critic import ReplyBatch, reply_log_probabilities
from duihua.stages.replies import Prompt, Reply, ReplySettings, Scorer, engine_sampler
from duihua.text.tokenizer import Tokenizer

HELD_OUT_ITERATION = 2**31
"""Stands for the iteration in the seeds of held-out replies: no rollout has it."""


class ComparisonSettings(ReplySettings, Protocol):
    """What a stage's config must say for its policy to be compared."""

    @property
    def micro_batch(self) -> int: ...
    @property
    def kl_coefficient(self) -> float: ...


@dataclass(frozen=True)
class Side:
    """A policy's replies to the held-out prompts. reward: mean score; length in tokens, the stop token included."""

    texts: list[str]
    scores: list[float]
    ended: list[bool]
    lengths: list[int]

    @property
    def reward(self) -> float:
        return sum(self.scores) / len(self.scores)

    @property
    def eos_rate(self) -> float:
        return sum(self.ended) / len(self.ended)

    @property
    def length(self) -> float:
        return sum(self.lengths) / len(self.lengths)

    @property
    def repetition(self) -> float:
        return repetition_rate(self.texts)


@dataclass(frozen=True)
class Comparison:
    """Before and after. log_ratios: log pi(reply) - log pi_ref(reply) of each reply after, in nats."""

    prompts: list[Prompt]
    before: Side
    after: Side
    log_ratios: list[float]
    kl_coefficient: float

    @property
    def gain(self) -> PairedMean:
        """Mean of the reward's differences, prompt by prompt, with its standard error."""
        return paired_mean(self.before.scores, self.after.scores)

    @property
    def kl(self) -> float:
        """KL(pi || pi_ref) in nats a reply, estimated on the policy's own samples."""
        return sum(self.log_ratios) / len(self.log_ratios)

    def to_mapping(self, samples: int) -> dict[str, Any]:
        """As it stands in result.json."""
        before, after = self.before, self.after
        return {
            "reward_before": before.reward,
            "reward_after": after.reward,
            "reward_gain": self.gain.to_dict(),
            "kl_nats": self.kl,
            "repetition_rate": {"before": before.repetition, "after": after.repetition},
            "length": {"before": before.length, "after": after.length},
            "eos_rate": {"before": before.eos_rate, "after": after.eos_rate},
            "samples": [self.sample(place) for place in self.shown(samples)],
        }

    def shown(self, samples: int) -> list[int]:
        """The places of the samples that are shown: the first ones of each language in turn, not the best."""
        languages = sorted({prompt.language for prompt in self.prompts})
        rows = [[i for i, prompt in enumerate(self.prompts) if prompt.language == language] for language in languages]
        mixed = [row[turn] for turn in range(max(map(len, rows))) for row in rows if turn < len(row)]
        return mixed[:samples]

    def sample(self, place: int) -> dict[str, Any]:
        """One prompt with both replies; total is what PPO maximises: the score less the KL penalty."""
        prompt, kl, after = self.prompts[place], self.log_ratios[place], self.after.scores[place]
        return {
            "prompt": prompt.messages[-1]["content"],
            "messages": prompt.messages,
            "language": prompt.language,
            "text_before": self.before.texts[place],
            "text_after": self.after.texts[place],
            "reward_before": self.before.scores[place],
            "reward_after": after,
            "kl": kl,
            "total": after - self.kl_coefficient * kl,
        }


def compare(
    reference: Decoder,
    policy: Decoder,
    scorer: Scorer,
    prompts: Sequence[Prompt],
    tokenizer: Tokenizer,
    config: ComparisonSettings,
    *,
    seed: int,
    kl_coefficient: float | None = None,
    dtype: torch.dtype | None = None,
) -> Comparison:
    """Let both answer every prompt once, from the same seeds, and judge the replies.

    kl_coefficient: of the totals that are shown; the config's where none is given (an adaptive one ends elsewhere).
    """
    seeds = [sample_seed(seed, HELD_OUT_ITERATION, prompt.index, 0) for prompt in prompts]
    sides: list[Side] = []
    replies: list[Reply] = []
    for network in (reference, policy):
        sample = engine_sampler(
            network,
            tokenizer,
            reply_tokens=config.reply_tokens,
            temperature=config.temperature,
            slots=config.slots,
            dtype=dtype,
        )
        replies = sample(prompts, seeds)
        sides.append(
            Side(
                texts=[tokenizer.decode(reply.ids).strip() for reply in replies],
                scores=scorer(prompts, replies).tolist(),
                ended=[reply.ended for reply in replies],
                lengths=[len(reply.ids) for reply in replies],
            )
        )
    beta = config.kl_coefficient if kl_coefficient is None else kl_coefficient
    ratios = log_ratios(policy, reference, prompts, replies, tokenizer.pad_id, config, dtype)
    return Comparison(list(prompts), sides[0], sides[1], ratios.tolist(), beta)


@torch.no_grad()
def log_ratios(
    policy: Decoder,
    reference: Decoder,
    prompts: Sequence[Prompt],
    replies: Sequence[Reply],
    pad_id: int,
    config: ComparisonSettings,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """log pi(reply | prompt) - log pi_ref(reply | prompt) for each reply, (n,), in nats."""
    device = policy.embedding.weight.device
    parts: list[Tensor] = []
    for start in range(0, len(prompts), config.micro_batch):
        part = slice(start, start + config.micro_batch)
        batch = ReplyBatch.pack(
            [prompt.ids for prompt in prompts[part]], [reply.ids for reply in replies[part]], pad_id, device
        )
        with torch.autocast(device.type, dtype=dtype) if dtype else contextlib.nullcontext():
            difference_br = reply_log_probabilities(policy, batch, config.temperature) - reply_log_probabilities(
                reference, batch, config.temperature
            )
        parts.append(difference_br.sum(dim=1).cpu())
    return torch.cat(parts)


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
