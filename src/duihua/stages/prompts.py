"""Choosing the prompts of a stage: from several sources in proportion to their weights, each with a person's reply.

Why lazily and in a hashed order: thousands of conversations stand behind a few hundred prompts, and encoding them all
would take longer than training. What is looked at and does not fit is counted with its reason; what is not needed is not
looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from duihua.data.pairs import Exchange, exchanges, interleave, shuffled
from duihua.data.records import ASSISTANT, SYSTEM, USER, Conversation, LeftOut, Message, Preference, Split
from duihua.data.source import Source, SourceConfig, open_source
from duihua.errors import ConfigError, DataError
from duihua.stages.replies import Prompt
from duihua.text.chat_template import ChatTemplate


def open_sources(configs: Sequence[SourceConfig], data_directory: Path, kind: str, where: str) -> list[Source]:
    """The sources of a config field, all of which must hold `kind` records. ConfigError names one that does not."""
    sources = []
    for place, config in enumerate(configs):
        try:
            sources.append(open_source(config, data_directory))
        except ConfigError as error:
            if error.where != "source":  # it says itself which one it is
                raise
            raise ConfigError(error.problem, where=f"{where}.{place}", remedy=error.remedy) from error
    for config, source in zip(configs, sources, strict=True):
        if source.kind != kind:
            if not config.name and not config.kind:  # nobody said what it holds: the user's own file, read as text
                raise ConfigError(
                    f"needs {kind}, and {source.name} is read as {source.kind} until it says what it holds",
                    where=where,
                    remedy=f"Add `kind: {kind}` to that source",
                )
            raise ConfigError(
                f"needs {kind}, and {source.name} holds {source.kind}",
                where=where,
                remedy=f"Name a source of {kind}; `duihua data list` shows the kinds",
            )
    return sources


def _conversations(records: Iterable[object]) -> Iterator[Conversation]:
    return (record for record in records if isinstance(record, Conversation))


def preferences(source: Source, split: Split) -> Iterator[Preference]:
    """The preferences of a source's split."""
    return (record for record in source.records(split) if isinstance(record, Preference))


def exchange_order(
    sources: Sequence[Source],
    configs: Sequence[SourceConfig],
    split: Split,
    seed: int,
    left_out: LeftOut,
    turns: int = 1,
) -> list[Exchange]:
    """All exchanges of the sources, in the order in which they are drawn: hashed within a source, mixed by weight.

    turns: at most so many of one conversation.
    """
    groups = [shuffled(exchanges(_conversations(source.records(split)), left_out, turns), seed) for source in sources]
    return interleave(groups, [config.weight for config in configs])


def draw_exchanges(
    order: Iterable[Exchange], count: int, problem: Callable[[Exchange], str], left_out: LeftOut
) -> list[Exchange]:
    """The first `count` exchanges for which `problem` has nothing to say; the others on the way are counted."""
    drawn: list[Exchange] = []
    for exchange in order:
        if len(drawn) == count:
            break
        reason = problem(exchange)
        if reason:
            left_out.add(reason, exchange.source)
        else:
            drawn.append(exchange)
    return drawn


def ends_of(prompt: Sequence[Message]) -> Iterator[list[Message]]:
    """The prompt's last message, its last few, and the whole prompt: each from a message of the user on, behind the system's.

    What is too long for an end of a prompt is too long for the prompt, and an end costs little to encode."""
    system = [message for message in prompt[:1] if message["role"] == SYSTEM]
    given = 0
    for length in (1, 5, len(prompt)):
        part = list(prompt[len(system) :][-length:])
        while length < len(prompt) and part and part[0]["role"] != USER:
            part.pop(0)
        if len(part) > given:
            given = len(part)
            yield [*system, *part]


def make_prompt(exchange: Exchange, index: int, template: ChatTemplate) -> Prompt:
    """The exchange's prompt, encoded up to the point where the assistant begins to speak."""
    ids = template.encode(exchange.prompt, add_generation_prompt=True).ids
    return Prompt(index, exchange.prompt, ids, exchange.source, exchange.language, exchange.reply)


def encode_pair_side(prompt: Sequence[Message], reply: str, template: ChatTemplate) -> tuple[list[int], int]:
    """Ids of prompt and reply up to the reply's stop token, and how many of them are the reply's (stop token included).

    The reward is read at the last of these ids, the stop token: what the template puts behind it is left off.
    """
    encoded = template.encode([*prompt, {"role": ASSISTANT, "content": reply}])
    last = max(place for place, inside in enumerate(encoded.loss_mask) if inside)
    first = last
    while first and encoded.loss_mask[first - 1]:
        first -= 1
    return encoded.ids[: last + 1], last + 1 - first


def require_stop_token(template: ChatTemplate, where: str) -> None:
    """Raise DataError where the template closes no reply with a stop token: what is learnt from it could never end."""
    encoded = template.encode([{"role": USER, "content": "a"}, {"role": ASSISTANT, "content": "b"}])
    learnt = [token for token, inside in zip(encoded.ids, encoded.loss_mask, strict=True) if inside]
    if not learnt or learnt[-1] not in template.tokenizer.stop_ids:
        raise DataError(
            "the chat template ends no reply with a stop token, so that a reply could never end by itself",
            where=where,
            remedy="Close the assistant's turn with the end token that tokenizer_config.json or generation_config.json names",
        )
