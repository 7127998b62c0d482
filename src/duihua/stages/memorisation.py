"""What a fine-tuned model knows by heart: its greedy replies to prompts that it was trained on, beside those to held-out ones.

Why both: a small model that is shown the same greetings a dozen times says them word for word, and is meant to; whether it
has learnt anything beyond shows in what it says to prompts that it has not seen. So each figure stands twice, and a source
that holds nothing out has one half of them and no gap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from duihua import console
from duihua.data.pairs import exchanges
from duihua.data.records import ASSISTANT, Conversation, LeftOut, Message, message_text
from duihua.engine.settings import SamplingSettings
from duihua.evaluation.accuracy import Scored
from duihua.evaluation.intervals import bootstrap_difference, bootstrap_mean, bootstrap_ratio, wilson
from duihua.evaluation.memorisation import copied_shares, longest_run
from duihua.models.decoder import Decoder
from duihua.stages.configs.sft import SFTConfig
from duihua.stages.held_out import answerable, chat_prompts, replies
from duihua.stages.source_losses import LearntSource, Losses
from duihua.text.chat_template import ChatTemplate
from duihua.text.tokenizer import Tokenizer

MOST_PROMPTS = 192
"""Of all sources together, of the training part and of the held-out part each."""


@dataclass(frozen=True)
class Question:
    """A prompt and every reply that its part of the data gives to it, first that of the conversation that was drawn."""

    prompt: list[Message]
    references: list[str]


@dataclass(frozen=True)
class Answer:
    """A greedy reply. equal: to a reference, as far as the reply could go; run: tokens of the longest run that it shares with
    one, and run_share of that one's tokens; copied: the share of its n-grams that stand in a training reply, and
    reference_copied the same of the first reference."""

    equal: bool
    run: int
    run_share: float
    copied: float
    reference_copied: float


def memorised(
    network: Decoder,
    parts: Sequence[LearntSource],
    losses: Losses,
    config: SFTConfig,
    template: ChatTemplate,
    epochs: float,
) -> dict[str, Any]:
    """{"sources": [{name, times_seen, heldout_known, train, heldout, gap}], "exact": {train, heldout}}, for result.json.

    train, heldout: {conversations, tokens, loss, prompts, exact, longest_run, run_share, copied, reference_copied}, each figure
    with its interval; None where nothing was measured. gap: held-out loss less that on training conversations. epochs: of the
    whole training.
    """
    count = min(config.memorisation_prompts, max(1, MOST_PROMPTS // len(parts)))
    groups = [
        questions(drawn, everything, count, template, network.config.context, config.reply_tokens)
        for part in parts
        for drawn, everything in ((part.drawn, part.train), (part.heldout, part.heldout))
    ]
    learnt = [conversation for part in parts for conversation in part.train]
    answered = iter(answers(network, template, groups, learnt, config.reply_tokens))
    sources: list[dict[str, Any]] = []
    equal: dict[str, list[bool]] = {"train": [], "heldout": []}
    for place, part in enumerate(parts):
        scored = {"train": losses.train[place], "heldout": losses.heldout_of(place)}
        source: dict[str, Any] = {
            "name": part.label,
            "times_seen": part.weight * epochs,
            "heldout_known": part.known,
            "gap": None,
        }
        for name, found in scored.items():
            made = next(answered)
            equal[name] += [one.equal for one in made]
            source[name] = {**loss_table(found), **reply_table(made)} or None
        if all(scored.values()):
            source["gap"] = bootstrap_difference(_sums(scored["train"]), _sums(scored["heldout"])).to_dict()
        sources.append(source)
    exact = {name: wilson(sum(all_of_it), len(all_of_it)).to_dict() for name, all_of_it in equal.items() if all_of_it}
    return {"sources": sources, "exact": exact}


def questions(
    drawn: Sequence[Conversation],
    part: Sequence[Conversation],
    count: int,
    template: ChatTemplate,
    context: int,
    reply_tokens: int,
) -> list[Question]:
    """At most `count` prompts out of `drawn`, in its order, with the replies that the whole part gives to each."""
    fitting = (e for e in exchanges(drawn, LeftOut()) if answerable(e.prompt, template, context, reply_tokens))
    chosen = list(islice(fitting, count))
    found = {_key(exchange.prompt): dict.fromkeys([exchange.reply]) for exchange in chosen}
    endings = {exchange.prompt[-1]["content"] for exchange in chosen}
    for conversation in part:
        messages = conversation.messages
        for place, message in enumerate(messages):
            if place and message["role"] == ASSISTANT and messages[place - 1]["content"] in endings:
                found.get(_key(messages[:place]), {})[message["content"]] = None
    return [Question(exchange.prompt, list(found[_key(exchange.prompt)])) for exchange in chosen]


def answers(
    network: Decoder,
    template: ChatTemplate,
    groups: Sequence[Sequence[Question]],
    learnt: Sequence[Conversation],
    reply_tokens: int,
) -> list[list[Answer]]:
    """The greedy replies to each group of questions, all generated together. learnt: every training conversation."""
    asked = [question for group in groups for question in group]
    settings = SamplingSettings(temperature=0.0, max_new_tokens=reply_tokens)
    prompts = chat_prompts([question.prompt for question in asked], template)
    said = [reply.text.strip() for reply in replies(network, template.tokenizer, prompts, settings)]
    copied = copied_shares([*said, *(question.references[0] for question in asked)], _replies_of(learnt))
    made = iter(
        [
            compared(question, reply, template.tokenizer, reply_tokens, copied[n], copied[len(said) + n])
            for n, (question, reply) in enumerate(zip(asked, said, strict=True))
        ]
    )
    return [list(islice(made, len(group))) for group in groups]


def compared(
    question: Question, said: str, tokenizer: Tokenizer, most: int, copied: float, reference_copied: float
) -> Answer:
    """A reply held against the references, of each the first `most` tokens: so long a reply could be at most."""
    ids = tokenizer.encode(said)
    meant = [tokenizer.encode(reference.strip()) for reference in question.references]
    equal = any(
        said == (reference.strip() if len(one) <= most else tokenizer.decode(one[:most]).strip())
        for reference, one in zip(question.references, meant, strict=True)
    )
    run, size = max((longest_run(ids, one[:most]), len(one[:most])) for one in meant)
    return Answer(equal, run, run / max(1, size), copied, reference_copied)


def loss_table(scored: Sequence[Scored]) -> dict[str, Any]:
    """Conversations, counted tokens and their loss; nothing where there are none."""
    if not scored:
        return {}
    tokens = sum(one.counted for one in scored)
    return {"conversations": len(scored), "tokens": tokens, "loss": bootstrap_ratio(*_sums(scored)).to_dict()}


def reply_table(made: Sequence[Answer]) -> dict[str, Any]:
    """The share of replies that equal a reference, and means over the replies; nothing where there are none."""
    if not made:
        return {}
    return {
        "prompts": len(made),
        "exact": wilson(sum(one.equal for one in made), len(made)).to_dict(),
        "longest_run": bootstrap_mean([one.run for one in made]).to_dict(),
        "run_share": bootstrap_mean([one.run_share for one in made]).to_dict(),
        "copied": bootstrap_mean([one.copied for one in made]).to_dict(),
        "reference_copied": bootstrap_mean([one.reference_copied for one in made]).to_dict(),
    }


def say_memorised(found: Mapping[str, Any]) -> None:
    """The figures of each source as a table, for people."""

    def value(source: Mapping[str, Any], part: str, name: str) -> float | None:
        one = (source[part] or {}).get(name)
        return None if one is None else float(one["value"])

    console.table(
        "learnt or learnt by heart: nats a token, and the share of greedy replies that equal the data's",
        ["source", "times seen", "loss: trained on", "held out", "gap", "equal: trained on", "held out"],
        [
            [
                source["name"],
                source["times_seen"],
                value(source, "train", "loss"),
                value(source, "heldout", "loss"),
                source["gap"]["value"] if source["gap"] else None,
                value(source, "train", "exact"),
                value(source, "heldout", "exact"),
            ]
            for source in found["sources"]
        ],
    )


def _key(prompt: Sequence[Message]) -> tuple[tuple[str, str], ...]:
    return tuple((message["role"], message_text(message)) for message in prompt)


def _replies_of(conversations: Sequence[Conversation]) -> Iterator[str]:
    return (
        message["content"]
        for conversation in conversations
        for message in conversation.messages
        if message["role"] == ASSISTANT
    )


def _sums(scored: Sequence[Scored]) -> tuple[list[float], list[float]]:
    return [one.nats for one in scored], [float(one.counted) for one in scored]
