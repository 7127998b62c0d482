"""Two bundles asked the same held-out prompts, and their replies judged blind by a reward model that made neither.

What stands beside the win rate, because each can fool a judge: length, replies that ended, repetition; and how often the judge
itself agrees with people on pairs that it has not seen, without which a win rate says nothing. Replies are kept while they
are made, so that an interrupted comparison goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from duihua import console
from duihua.data.records import LeftOut, Preference
from duihua.data.source import SourceConfig
from duihua.engine.randomness import sample_seed
from duihua.errors import ConfigError
from duihua.models.bundle import Bundle, load_bundle
from duihua.stages.blind import WinRate, blind_verdicts, pair_judge, win_rate
from duihua.stages.comparison import HELD_OUT_ITERATION, Side
from duihua.stages.encoded_pairs import encode_pairs
from duihua.stages.judging import check_context, check_tokenizers, choose_prompts
from duihua.stages.prompts import open_sources
from duihua.stages.replies import Prompt, Reply, replies_key, sampler_of, stored_replies
from duihua.stages.reward_measures import measure
from duihua.stages.scoring import reward_scorer, score_rows
from duihua.text.chat_template import ChatTemplate


@dataclass(frozen=True)
class Asked:
    """What both are asked. prompts: most held-out prompts; replies: of each side to each prompt; the rest as in training."""

    sources: tuple[SourceConfig, ...]
    prompts: int
    replies: int
    prompt_tokens: int
    reply_tokens: int
    temperature: float
    slots: int
    samples: int = 8

    def __post_init__(self) -> None:
        for name in ("prompts", "replies"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"must be at least 1, found {getattr(self, name)}", where=f"--{name}", remedy="Ask at least once"
                )


@dataclass(frozen=True)
class BlindComparison:
    """The verdicts on the new bundle against the old one, reply by reply, and both sides' replies."""

    prompts: list[Prompt]
    old: Side
    new: Side
    verdicts: list[int]
    left_out: LeftOut

    @property
    def win_rate(self) -> WinRate:
        """Of the new side."""
        return win_rate(self.prompts, self.verdicts)

    def to_mapping(self, samples: int) -> dict[str, Any]:
        """As it stands in comparison.json. worse: replies that lost, first ones first, beside the first of all."""
        lost = [place for place, verdict in enumerate(self.verdicts) if verdict < 0]
        first = [place for place, prompt in enumerate(self.prompts) if place == 0 or prompt != self.prompts[place - 1]]
        return {
            "win_rate": self.win_rate.to_mapping(),
            "length": {"old": self.old.length, "new": self.new.length},
            "eos_rate": {"old": self.old.eos_rate, "new": self.new.eos_rate},
            "repetition_rate": {"old": self.old.repetition, "new": self.new.repetition},
            "samples": [self._sample(place) for place in first[:samples]],
            "worse": [self._sample(place) for place in lost[:samples]],
            "left_out": self.left_out.to_mapping(),
        }

    def _sample(self, place: int) -> dict[str, Any]:
        prompt = self.prompts[place]
        return {
            "prompt": prompt.messages[-1]["content"],
            "language": prompt.language,
            "old": self.old.texts[place],
            "new": self.new.texts[place],
            "verdict": ("old", "tie", "new")[1 + self.verdicts[place]],
        }


def check_sides(asked: Asked, old: Bundle, new: Bundle, judge: Bundle | None) -> None:
    """Raise where the lengths do not fit a context, or the tokenizers differ. ConfigError, BundleError."""
    check_context("comparison", asked.prompt_tokens, asked.reply_tokens, (old, new, judge))
    if judge is not None:
        _ = judge.reward
        for side in (old, new):
            check_tokenizers(side.tokenizer, judge)


def compare_blind(
    old_directory: Path,
    new_directory: Path,
    judge_directory: Path,
    asked: Asked,
    *,
    data_directory: Path,
    folder: Path,
    seed: int,
    device: str = "cpu",
) -> BlindComparison:
    """Ask both, judge, count. folder: where replies are kept while they are made.

    Raises BundleError and ConfigError as `check_sides`, DataError where there are next to no prompts.
    """
    old, new, judge = (load_bundle(one, device) for one in (old_directory, new_directory, judge_directory))
    check_sides(asked, old, new, judge)
    left_out = LeftOut()
    sources = open_sources(asked.sources, data_directory, "conversations", "comparison")
    chosen = choose_prompts(
        "comparison", sources, asked.sources, "heldout", asked.prompts, asked.prompt_tokens, ChatTemplate(new.tokenizer),
        seed, left_out,
    )  # fmt: skip
    prompts = [prompt for prompt in chosen for _ in range(asked.replies)]
    seeds = [
        sample_seed(seed, HELD_OUT_ITERATION, prompt.index, draw) for prompt in chosen for draw in range(asked.replies)
    ]
    replies: list[list[Reply]] = []
    for name, side in (("old", old), ("new", new)):
        key = replies_key(side, asked)
        replies.append(stored_replies(sampler_of(side, asked), prompts, seeds, folder / "replies", key, name))
    scorer = reward_scorer(judge)
    sides = [_side(one, scorer(prompts, one).tolist(), new) for one in replies]
    verdicts = blind_verdicts(pair_judge(scorer), prompts, replies[0], replies[1], seed)
    return BlindComparison(prompts, sides[0], sides[1], verdicts, left_out)


def _side(replies: Sequence[Reply], scores: list[float], bundle: Bundle) -> Side:
    return Side(
        texts=[bundle.tokenizer.decode(reply.ids).strip() for reply in replies],
        scores=scores,
        ended=[reply.ended for reply in replies],
        lengths=[len(reply.ids) for reply in replies],
    )


def judge_accuracy(judge: Bundle, pairs: Sequence[Preference]) -> dict[str, Any]:
    """How often the judge prefers what people preferred, on pairs that it has not seen: value, low, high, n."""
    encoded = encode_pairs(
        pairs, "human", judge.config.context, ChatTemplate(judge.tokenizer), LeftOut(), cut=LeftOut()
    )

    def scores_of(rows: Sequence[Sequence[int]]) -> torch.Tensor:
        return score_rows(judge.reward, rows, judge.tokenizer.pad_id)

    found: dict[str, Any] = measure(scores_of, encoded)["accuracy"]
    return found


def show(compared: dict[str, Any], old: str, new: str) -> None:
    """The comparison on the console."""
    rate, accuracy = compared["win_rate"], compared["judge"]["accuracy"]
    console.table(
        f"{new} against {old}: {rate['n']} held-out prompts, judged blind in both orders",
        ["", old, new],
        [
            ["length (tokens)", compared["length"]["old"], compared["length"]["new"]],
            ["replies that ended", compared["eos_rate"]["old"], compared["eos_rate"]["new"]],
            ["repeated 4-grams", compared["repetition_rate"]["old"], compared["repetition_rate"]["new"]],
        ],
    )
    console.say(
        f"{new} wins {rate['value']:.1%} (95 % interval {rate['low']:.1%} to {rate['high']:.1%}): "
        f"{rate['wins']} won, {rate['ties']} tied, {rate['losses']} lost"
    )
    if accuracy["n"]:
        console.say(
            f"The judge agrees with people on {accuracy['value']:.1%} ({accuracy['low']:.1%} to {accuracy['high']:.1%}) of "
            f"{accuracy['n']} held-out pairs"
        )
        if accuracy["low"] <= 0.5:
            console.warn("The judge's interval holds 50 %: it may be no better than a coin, and so may this win rate")
    else:
        console.warn("No pair is held out, so nothing says how good the judge is")
