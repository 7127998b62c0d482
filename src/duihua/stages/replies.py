"""Sampling replies from a policy: for rollouts, for pairs, for normalising, for the comparison before and after.

Why one place: PPO is only right when replies are drawn from exactly the distribution whose log-probabilities are trained.
So nothing but the temperature may shape the draw (`require_plain`), every reply has a seed that is a hash of what it is
for, and a reply ends at its first stop token, which belongs to it: stopping is an action of the policy like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from duihua import console
from duihua.data.records import Message
from duihua.engine.engine import Engine
from duihua.engine.settings import SamplingSettings, require_plain
from duihua.errors import DuihuaError
from duihua.files import read_json, sha256_json, write_json
from duihua.models.bundle import Bundle
from duihua.models.decoder import Decoder
from duihua.models.weights import weights_fingerprint
from duihua.text.tokenizer import Tokenizer
from duihua.training.ranks import current

CHUNK = 128
"""Replies sampled and stored together by `stored_replies`: what an interruption can lose, and a fixed batch composition."""


@dataclass(frozen=True)
class Prompt:
    """A prompt of a run: its place in the run's list (which enters the seeds), the messages, and their ids. answer: the
    reply that the data gives, for rules that compare with it."""

    index: int
    messages: list[Message]
    ids: list[int]
    source: str = ""
    language: str = ""
    answer: str = ""


class ReplySettings(Protocol):
    """What a stage's config must say for its policy to answer."""

    @property
    def reply_tokens(self) -> int: ...
    @property
    def temperature(self) -> float: ...
    @property
    def slots(self) -> int: ...


class Reply(NamedTuple):
    """A sampled reply: ids up to its stop token (included), the sampler's log-probabilities, and whether it ended."""

    ids: list[int]
    logprobs: list[float]
    ended: bool


Sampler = Callable[[Sequence[Prompt], Sequence[int]], list[Reply]]
"""Draws one reply for each prompt, each with its own seed, from the policy as it now is."""
Scorer = Callable[[Sequence[Prompt], Sequence[Reply]], Tensor]
"""Judges replies: one number each, (n,) in fp32. The reward model, or any rule."""


def truncate_at_stop(ids: Sequence[int], stop_ids: Sequence[int], limit: int) -> tuple[list[int], bool]:
    """The reply up to its first stop token (included) or `limit` tokens, and whether it ended by a stop token."""
    for place, token in enumerate(ids[:limit]):
        if token in stop_ids:
            return list(ids[: place + 1]), True
    return list(ids[:limit]), False


def engine_sampler(
    policy: Decoder,
    tokenizer: Tokenizer,
    *,
    reply_tokens: int,
    temperature: float,
    slots: int,
    dtype: torch.dtype | None = None,
) -> Sampler:
    """A sampler that draws from `policy` with the engine: the same class, cache and forward that serve chat."""
    settings = SamplingSettings(temperature=temperature, max_new_tokens=reply_tokens, stop_ids=tokenizer.stop_ids)
    require_plain(settings)
    engine = Engine(policy, None, slots, compute_dtype=dtype)

    def sample(prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Reply]:
        replies = []
        for completion in engine.generate([prompt.ids for prompt in prompts], settings, seeds):
            ids, ended = truncate_at_stop(completion.ids, tokenizer.stop_ids, reply_tokens)
            replies.append(Reply(ids, completion.logprobs.tolist()[: len(ids)], ended))
        return replies

    return sample


def sampler_of(policy: Bundle, settings: ReplySettings, dtype: torch.dtype | None = None) -> Sampler:
    """The sampler of a stage, whose ranks draw a part each. Its present weights answer, not those that it was loaded with."""
    return sampled_in_parts(
        engine_sampler(
            policy.policy,
            policy.tokenizer,
            reply_tokens=settings.reply_tokens,
            temperature=settings.temperature,
            slots=settings.slots,
            dtype=dtype,
        )
    )


def replies_key(policy: Bundle, settings: ReplySettings, dtype: torch.dtype | None = None) -> str:
    """A hash of all that the replies of a stored bundle depend on, prompts and seeds aside: the key of `stored_replies`."""
    weights = weights_fingerprint(policy.directory)
    return sha256_json([weights, policy.tokenizer.fingerprint, settings.reply_tokens, settings.temperature, str(dtype)])


def sampled_in_parts(sample: Sampler) -> Sampler:
    """Each rank draws the replies numbered rank, rank + ranks, ..., and all get all: a reply depends on its seed alone."""

    def drawn(prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Reply]:
        ranks = current()
        if ranks.count == 1:
            return sample(prompts, seeds)
        own = slice(ranks.number, None, ranks.count)
        parts = ranks.gather(sample(prompts[own], seeds[own]) if prompts[own] else [])
        return [Reply(*parts[place % ranks.count][place // ranks.count]) for place in range(len(prompts))]

    return drawn


def alternating(samplers: Sequence[Sampler]) -> Sampler:
    """Prompts are answered by one sampler after the other, by their index: all replies to one prompt are of the same one."""

    def drawn(prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Reply]:
        found: dict[int, Reply] = {}
        for number, sample in enumerate(samplers):
            places = [place for place, prompt in enumerate(prompts) if prompt.index % len(samplers) == number]
            if places:
                made = sample([prompts[place] for place in places], [seeds[place] for place in places])
                found |= zip(places, made, strict=True)
        return [found[place] for place in range(len(prompts))]

    return drawn


def scored_in_parts(scorer: Scorer) -> Scorer:
    """Each rank judges the replies numbered rank, rank + ranks, ..., and all get all scores."""

    def judged(prompts: Sequence[Prompt], replies: Sequence[Reply]) -> Tensor:
        ranks = current()
        if ranks.count == 1:
            return scorer(prompts, replies)
        own = slice(ranks.number, None, ranks.count)
        parts = ranks.gather(scorer(prompts[own], replies[own]).tolist() if prompts[own] else [])
        return torch.tensor([parts[place % ranks.count][place // ranks.count] for place in range(len(prompts))])

    return judged


def stored_replies(
    sample: Sampler, prompts: Sequence[Prompt], seeds: Sequence[int], folder: Path, key: str, label: str
) -> list[Reply]:
    """`sample(prompts, seeds)` in chunks, each written to `folder` once made, so that an interrupted stage goes on.

    A stored chunk is used only for the same prompts, seeds and `key` (a hash of policy and settings); a broken or foreign
    file is made again. The chunks never depend on what was stored, so the replies do not either. Of several ranks the
    first one reads and writes.
    """
    replies: list[Reply] = []
    ranks = current()
    with console.progress(len(prompts), "reply", label) as bar:
        for start in range(0, len(prompts), CHUNK):
            part, part_seeds = prompts[start : start + CHUNK], seeds[start : start + CHUNK]
            mark = sha256_json([key, [prompt.ids for prompt in part], list(part_seeds)])
            path = folder / f"{label}-{start // CHUNK:04d}.json"
            known = ranks.share(_read_chunk(path, mark) if ranks.first else None)
            made = [Reply(*reply) for reply in known] if known is not None else sample(part, part_seeds)
            if known is None and ranks.first:
                stored = [[reply.ids, reply.logprobs, reply.ended] for reply in made]
                write_json(path, {"mark": mark, "replies": stored})
            replies += made
            bar.advance(len(part))
    return replies


def _read_chunk(path: Path, mark: str) -> list[Reply] | None:
    if not path.exists():
        return None
    try:
        stored = read_json(path)
        if stored["mark"] == mark:
            return [Reply(list(ids), list(logprobs), bool(ended)) for ids, logprobs, ended in stored["replies"]]
    except (DuihuaError, KeyError, TypeError, ValueError):
        console.say(f"{path.name} cannot be read and is made again")
    return None
