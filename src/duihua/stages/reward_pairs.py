"""The pairs that the reward model learns from and is tested on.

Three kinds, always counted and reported apart: human (judged pairs), sampled (a person's reply against one that the SFT
policy sampled for the same prompt), off-topic (a person's reply against the reply to another prompt). A fourth is for
training alone, cut short (a person's reply against its own first third): sampled replies that went wrong went wrong the more
the longer they are, so that without it a small model learns little else than that shorter is better. Held-out pairs come
from held-out prompts, which no stage trains on. Judged pairs are often longer than a small model reads: they are cut (or
left out, as the config says) and counted either way; what was judged may lie behind the cut, which their accuracy shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from duihua import console
from duihua.data.pairs import Exchange, in_half, off_topic_pairs, sampled_pairs, shuffled
from duihua.data.preference_sets import distinct, without_leaks
from duihua.data.records import LeftOut, Preference, Split
from duihua.data.source import KNOWN_SOURCES, Source
from duihua.data.spoilt_replies import cut_short_pairs
from duihua.data.vote_store import SUFFIXES as VOTES
from duihua.engine.randomness import sample_seed
from duihua.errors import DataError
from duihua.stages.configs.pairs import PairsConfig
from duihua.stages.encoded_pairs import Pair, encode_pairs, without_end
from duihua.stages.prompts import (
    draw_exchanges,
    encode_pair_side,
    ends_of,
    exchange_order,
    make_prompt,
    preferences,
    require_stop_token,
)
from duihua.stages.replies import Reply, Sampler, stored_replies
from duihua.stages.scoring import closed_row
from duihua.text.chat_template import ChatTemplate
from duihua.text.tokenizer import Tokenizer

KINDS = ("human", "sampled", "off_topic")
CUT_SHORT = "cut_short"
KIND_TEXTS = {"off_topic": "off-topic", CUT_SHORT: "cut short"}
OTHER_HALF = "prompt of the other half"
NONE_HELD_OUT = "no pair is held out, so its accuracy on unseen ones is not known"


@dataclass
class PairData:
    """All pairs of the stage. normalising, verifying: replies of the reference policy as rows (prompt, reply, stop)."""

    train: list[Pair] = field(default_factory=list)
    heldout: list[Pair] = field(default_factory=list)
    heldout_exchanges: list[Exchange] = field(default_factory=list)
    normalising: list[list[int]] = field(default_factory=list)
    verifying: list[list[int]] = field(default_factory=list)
    left_out: dict[str, LeftOut] = field(default_factory=lambda: {"train": LeftOut(), "heldout": LeftOut()})
    cut: dict[str, LeftOut] = field(default_factory=lambda: {"train": LeftOut(), "heldout": LeftOut()})

    def counts(self) -> dict[str, dict[str, int]]:
        """{"train": {kind: pairs}, "heldout": {kind: pairs}}."""
        return {
            name: {kind: sum(pair.kind == kind for pair in pairs) for kind in kinds}
            for name, pairs, kinds in (("train", self.train, (*KINDS, CUT_SHORT)), ("heldout", self.heldout, KINDS))
        }


class PairMaker:
    """Makes `PairData`; holds what all its steps need.

    open_ends: replies that were cut, or sampled without an end, keep none. A reward model reads its score at the stop token
    and needs one on every reply; a policy that learns from likelihoods would learn of such a token, behind half a sentence
    of a rejected reply, that to end is bad. rejected: who writes the sampled replies of pairs, with its key, where that is not
    `sample` alone, which writes those that scores are normalised by.
    """

    def __init__(
        self,
        config: PairsConfig,
        template: ChatTemplate,
        length: int,
        sample: Sampler,
        folder: Path,
        key: str,
        seed: int,
        stage: str = "reward",
        open_ends: bool = False,
        rejected: tuple[Sampler, str] | None = None,
    ) -> None:
        require_stop_token(template, "the chat template of the policy")
        self.open_ends, self.rejected = open_ends, rejected or (sample, key)
        self.config, self.template, self.length, self.seed = config, template, length, seed
        self.tokenizer: Tokenizer = template.tokenizer
        self.sample, self.folder, self.key, self.stage = sample, folder, key, stage

    def make(
        self, judged: Sequence[Source], conversations: Sequence[Source], normalising: int = 0, verifying: int = 0
    ) -> PairData:
        """Pairs of all kinds for both splits, and so many replies for the normalisation of a reward and for its check.

        The held-out judged pairs are read first: a training pair that gives one of them away is left out. Raises DataError
        before anything is sampled where the judged pairs give none to learn from and there are no conversations.
        """
        data = PairData()
        config = self.config
        held = self.judged(judged, "heldout", data)
        known = without_leaks(self.judged(judged, "train", data), held, data.left_out["train"])
        data.heldout, data.train = self._encoded(held, "heldout", data), self._encoded(known, "train", data)
        if not data.train and not conversations:
            raise nothing_to_learn(data.left_out["train"], self.stage)
        if conversations:
            wanted = [config.sampled_pairs, normalising, verifying]
            pool = self._pool(conversations, "train", sum(wanted), data.left_out["train"])
            # Shuffled, since a source that is used up is missing at the end of the pool: the parts must be alike. With
            # another seed than the pool was drawn by, or a source of which little was drawn would all come first.
            for_pairs, to_normalise, to_verify = share_out(shuffled(pool, self.seed + 1), wanted)
            data.train += self._made(for_pairs, config.off_topic_pairs, "train", data.left_out["train"])
            cut_short = cut_short_pairs(for_pairs, config.cut_short_pairs, data.left_out["train"])
            data.train += encode_pairs(cut_short, CUT_SHORT, self.length, self.template, data.left_out["train"])
            data.normalising, data.verifying = self._rows(to_normalise, "normalise"), self._rows(to_verify, "verify")
            self.held_out(conversations, data)
        return data

    def judged(self, sources: Sequence[Source], split: Split, data: PairData) -> list[Preference]:
        """The judged pairs of a split, each once."""
        by_source = [list(preferences(source, split)) for source in sources]
        for source, found in zip(sources, by_source, strict=True):
            if split == "heldout" and not found:
                console.warn(f"{self.stage}: {source.name}: {NONE_HELD_OUT}{_held_out_remedy(source)}")
        records = [record for found in by_source for record in found]
        if split == "train":
            for record in records:
                if not in_half(record.prompt, self.config.half):
                    data.left_out[split].add(OTHER_HALF, record.source)
            records = [record for record in records if in_half(record.prompt, self.config.half)]
        for source in sources:
            for reason, count in source.left_out.counts.items():
                data.left_out[split].add(reason, source.left_out.first_place[reason], count)
        return distinct(records, data.left_out[split])

    def _encoded(self, records: Sequence[Preference], split: Split, data: PairData) -> list[Pair]:
        cut = data.cut[split] if self.config.long_pairs == "cut" else None
        return encode_pairs(records, "human", self.length, self.template, data.left_out[split], cut, self.open_ends)

    def held_out(self, conversations: Sequence[Source], data: PairData) -> None:
        """Sampled and off-topic pairs of held-out prompts, and those prompts with their replies, into `data`."""
        config = self.config
        most = max(config.heldout_sampled_pairs, config.heldout_off_topic_pairs)
        held = self._pool(conversations, "heldout", most, data.left_out["heldout"])
        data.heldout += self._made(held, config.heldout_off_topic_pairs, "heldout", data.left_out["heldout"])
        data.heldout_exchanges = held

    def for_doctor(
        self, judged: Sequence[Source], conversations: Sequence[Source], with_policy: bool
    ) -> tuple[PairData, list[tuple[list[int], int]]]:
        """Held-out pairs alone, and one fresh reply to each held-out prompt (as a row, with the reply's own tokens); without a
        policy none of what has to be sampled."""
        data = PairData()
        data.heldout = self._encoded(self.judged(judged, "heldout", data), "heldout", data)
        if not conversations:
            return data, []
        if with_policy:
            self.held_out(conversations, data)
            rows = self._rows(data.heldout_exchanges, "doctor")
            asked = [len(make_prompt(exchange, 0, self.template).ids) for exchange in data.heldout_exchanges]
            return data, [(row, len(row) - prompt) for row, prompt in zip(rows, asked, strict=True)]
        config, left_out = self.config, data.left_out["heldout"]
        held = data.heldout_exchanges = self._pool(conversations, "heldout", config.heldout_off_topic_pairs, left_out)
        others = off_topic_pairs(held, config.heldout_off_topic_pairs, self.seed, left_out)
        data.heldout += encode_pairs(others, "off_topic", self.length, self.template, left_out)
        return data, []

    def _pool(self, sources: Sequence[Source], split: Split, count: int, left_out: LeftOut) -> list[Exchange]:
        """Exchanges whose prompt leaves room for a reply and whose reply could have been sampled within the limit."""

        def problem(exchange: Exchange) -> str:
            if split == "train" and not in_half(exchange.prompt, self.config.half):
                return OTHER_HALF
            for part in ends_of(
                exchange.prompt
            ):  # the end of a long conversation is enough to refuse it, and soon encoded
                ids, reply = encode_pair_side(part, exchange.reply, self.template)
                if reply > self.config.reply_tokens:
                    return f"person's reply longer than {self.config.reply_tokens} tokens"
                if len(ids) - reply + self.config.reply_tokens + 1 > self.length:
                    return f"prompt leaves no room for {self.config.reply_tokens} tokens"
            return ""

        order = exchange_order(sources, self.config.conversations, split, self.seed, left_out, self.config.turns)
        return draw_exchanges(order, count, problem, left_out)

    def _replies(
        self, items: Sequence[Exchange], label: str, candidates: int = 1, by: tuple[Sampler, str] | None = None
    ) -> list[list[Reply]]:
        """`candidates` sampled replies to each exchange's prompt, by another sampler (with its key) than the policy's."""
        if not items:
            return []
        sample, key = by or (self.sample, self.key)
        prompts = [make_prompt(exchange, index, self.template) for index, exchange in enumerate(items)]
        seeds = [
            sample_seed(self.seed, 0, int(exchange.key[:15], 16), number)
            for number in range(candidates)
            for exchange in items
        ]
        replies = stored_replies(sample, prompts * candidates, seeds, self.folder, key, label)
        return [replies[place :: len(items)] for place in range(len(items))]

    def _nearest_in_length(self, items: Sequence[Exchange], label: str) -> list[Reply]:
        """For each exchange the sampled reply whose length is nearest to the person's: else length alone would tell the
        two apart, and PPO would learn to be short instead of good."""
        chosen = []
        sampled = self._replies(items, label, self.config.sampled_candidates, self.rejected)
        for exchange, replies in zip(items, sampled, strict=True):
            wanted = len(self.tokenizer.encode(exchange.reply.strip())) + 1  # and the stop token
            chosen.append(min(replies, key=lambda reply: abs(len(reply.ids) - wanted)))
        return chosen

    def _made(self, items: Sequence[Exchange], off_topic: int, split: Split, left_out: LeftOut) -> list[Pair]:
        """Sampled and off-topic pairs of these exchanges."""
        pairs: list[Pair] = []
        for exchange, reply in zip(items, self._nearest_in_length(items, split), strict=True):
            sampled = sampled_pairs([exchange], [self.tokenizer.decode(reply.ids)], left_out)
            found = encode_pairs(sampled, "sampled", self.length, self.template, left_out)
            pairs += [without_end(pair) for pair in found] if self.open_ends and not reply.ended else found
        others = off_topic_pairs(items, off_topic, self.seed, left_out)
        return pairs + encode_pairs(others, "off_topic", self.length, self.template, left_out)

    def _rows(self, items: Sequence[Exchange], label: str) -> list[list[int]]:
        """Replies of the reference policy, as the reward model reads them."""
        rows = []
        for exchange, (reply,) in zip(items, self._replies(items, label), strict=True):
            prompt = make_prompt(exchange, 0, self.template)
            rows.append(closed_row(prompt.ids, reply, self.tokenizer))
        return rows


def kind_text(kind: str) -> str:
    """A kind of pairs for people."""
    return KIND_TEXTS.get(kind, kind)


def accuracy_rows(kinds: Mapping[str, Mapping[str, Any]], total: str, of_all: Mapping[str, Any]) -> list[list[Any]]:
    """Rows for the console of held-out accuracy by kind and of all, `total`; none for what has no pair."""
    named = [*((kind_text(kind), found) for kind, found in kinds.items()), (total, of_all)]
    return [[name, found["value"], found["low"], found["high"], found["n"]] for name, found in named if found["n"]]


def _held_out_remedy(source: Source) -> str:
    """What gives a source held-out pairs; a known one has its own part, and of votes one in some is held out by hash."""
    if source.name in KNOWN_SOURCES:
        return ""
    if Path(source.name).suffix.lower() in VOTES:
        return "; gather more votes"
    return "; name a file of such pairs in its `heldout:`, or add pairs"


def nothing_to_learn(left_out: LeftOut, stage: str) -> DataError:
    """What is raised where no pair is left, naming what most of them were left out for."""
    most = left_out.counts.most_common(1)
    why = f": {most[0][1]} x {most[0][0]}" if most else ""
    return DataError(
        f"there is no pair to learn from{why}", where=stage, remedy="Add sources, or raise length or reply_tokens"
    )


def share_out(pool: Sequence[Exchange], wanted: Sequence[int]) -> list[list[Exchange]]:
    """Cut a pool into parts of the wanted sizes; a pool that is too small is shared in their proportion."""
    total = sum(wanted)
    sizes = list(wanted) if len(pool) >= total else [len(pool) * want // total for want in wanted]
    parts, start = [], 0
    for size in sizes:
        parts.append(list(pool[start : start + size]))
        start += size
    return parts
