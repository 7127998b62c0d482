"""Base, fine-tuned and PPO model side by side, on data that none of them has trained on.

Each number answers one question. Bits per byte: how well is plain text predicted, and how much of that did fine-tuning
cost? Token accuracy: how often is the assistant's next token the likeliest? BLEU and chrF: how near are replies to a
person's? Greetings: did the simplest questions take hold? Repetition: does it go round in circles? Reward: does the
reward model like PPO's replies better, prompt by prompt?

All models meet the same documents, prompts and random numbers. The base model has never met the chat template, so its
prompts are plain text, one message a line, which it goes on with.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from duihua import console
from duihua.data.packing import encode_conversations
from duihua.data.pairs import Exchange, exchanges, interleave, shuffled, stable_number
from duihua.data.records import ASSISTANT, USER, Conversation, Document, LeftOut, Message
from duihua.data.source import open_source
from duihua.data.starter.greetings import Greeting, greetings
from duihua.engine.randomness import sample_seed
from duihua.engine.request import Completion
from duihua.engine.settings import SamplingSettings
from duihua.errors import ConfigError
from duihua.evaluation.accuracy import TokenAccuracy, token_accuracy
from duihua.evaluation.bits_per_byte import TextScore, bits_per_byte
from duihua.evaluation.greetings import greetings_report
from duihua.evaluation.intervals import paired_mean
from duihua.evaluation.repetition import repeated_share
from duihua.models.bundle import Bundle, load_bundle
from duihua.stages.configs.evaluate import EvaluateConfig, SamplePrompt
from duihua.stages.context import StageContext, StageResult
from duihua.stages.evaluation_tables import bleu_table, greetings_table, repetition_table
from duihua.stages.held_out import answerable, chat_prompts, held_out_conversations, plain_prompts, replies
from duihua.stages.left_out import say_left_out
from duihua.stages.pretrain import held_out_documents
from duihua.stages.prompts import open_sources
from duihua.stages.replies import Prompt, Reply
from duihua.stages.scoring import reward_scorer
from duihua.text.chat_template import ChatTemplate

MODELS = ("base", "sft", "ppo")
"""Inputs that write text, in the order of training."""


@dataclass(frozen=True)
class Material:
    """What all models are measured on. exchanges: prompts with a person's reply. What does not fit is counted."""

    documents: list[Document]
    conversations: list[Conversation]
    exchanges: list[Exchange]
    greetings: list[Greeting]
    samples: list[SamplePrompt]
    left_out: LeftOut


@dataclass
class Measured:
    """What was measured of one model. repeated: share of repeated n-grams, mean over the replies to each prompt."""

    text: dict[str, TextScore] = field(default_factory=dict)
    accuracy: TokenAccuracy | None = None
    sampled: list[Completion] = field(default_factory=list)
    repeated: list[float] = field(default_factory=list)
    likeliest: list[str] = field(default_factory=list)
    greetings: dict[str, dict[str, object]] = field(default_factory=dict)
    samples: list[str] = field(default_factory=list)


def run(config: EvaluateConfig, context: StageContext) -> StageResult:
    """Measure the inputs "base", "sft" and "ppo" (those that are given), and score replies with "reward" if given."""
    started = time.monotonic()
    present = [name for name in MODELS if name in context.inputs]
    if not present:
        raise ConfigError("there is no model to evaluate", where="evaluate", remedy="Give one of base, sft, ppo")
    talking = [name for name in present if name != "base"]
    judge = load_bundle(context.inputs[talking[0] if talking else present[0]], context.device)
    material = gather(config, context, judge)
    measured: dict[str, Measured] = {}
    for name in present:
        console.say(f"evaluate: {name}")
        bundle = load_bundle(context.inputs[name], context.device)
        measured[name] = measure(bundle, material, config, context, chat=name != "base")
    metrics: dict[str, Any] = {
        "bits_per_byte": {
            name: {language: score.bits_per_byte for language, score in made.text.items()}
            for name, made in measured.items()
            if made.text
        },
        "perplexity": {
            name: {language: score.perplexity for language, score in made.text.items()}
            for name, made in measured.items()
            if made.text
        },
        "token_accuracy": {
            name: made.accuracy.accuracy.to_dict() for name, made in measured.items() if made.accuracy is not None
        },
        **repetition_table({name: made.repeated for name, made in measured.items() if made.repeated}),
        **bleu_table(material.exchanges, {name: measured[name].likeliest for name in talking}),
        **greetings_table({name: measured[name].greetings for name in talking if measured[name].greetings}),
        **reward_table(measured, material.exchanges, talking, context),
        "samples": [
            {
                "language": prompt.language,
                "prompt": shown(prompt),
                "messages": messages_of(prompt),
                **{name: made.samples[place] for name, made in measured.items()},
            }
            for place, prompt in enumerate(material.samples)
        ],
        "settings": {
            "heldout_documents": len(material.documents),
            "heldout_bytes": sum(len(document.text.encode("utf-8")) for document in material.documents),
            "heldout_conversations": len(material.conversations),
            "prompts": {language: len(of_language(material.exchanges, language)) for language in ("en", "zh")},
            "repetition": "share of word (Chinese: character) 4-grams of a reply that stood in it before",
            "repetition_samples": config.repetition_samples,
            "temperature": config.temperature,
            "sample_temperature": config.sample_temperature,
        },
        "left_out": material.left_out.to_mapping(),
        "seconds": time.monotonic() - started,
    }
    result = StageResult(None, metrics)
    result.save(context.directory)
    return result


def gather(config: EvaluateConfig, context: StageContext, judge: Bundle) -> Material:
    """The documents, conversations, prompts and greetings; `judge` decides which prompts are short enough."""
    left_out = LeftOut()
    texts = [open_source(source, context.data_directory) for source in config.text_sources]
    documents = choose_documents(list(held_out_documents(texts)), config.heldout_bytes)
    sources = open_sources(config.sources, context.data_directory, "conversations", "evaluate.sources")
    known = held_out_conversations(sources, 0)
    items = shuffled(exchanges(known, left_out), 0)
    languages = sorted({exchange.language for exchange in items})
    balanced = interleave([of_language(items, language) for language in languages], [1.0] * len(languages))
    template = ChatTemplate(judge.tokenizer)
    asked: list[Exchange] = []
    for exchange in balanced:
        if len(asked) == config.prompts:
            break
        if not answerable(exchange.prompt, template, judge.config.context, config.reply_tokens):
            left_out.add("prompt too long", exchange.source)
        elif len(judge.tokenizer.encode(exchange.reply)) >= config.reply_tokens:
            left_out.add("reference longer than a reply may be", exchange.source)
        else:
            asked.append(exchange)
    context_tokens = judge.config.context
    listed: list[Greeting] = []
    for greeting in greetings() if config.greetings else []:
        if answerable(question(greeting), template, context_tokens, 1):
            listed.append(greeting)
        else:
            left_out.add("greeting too long", "greetings")
    samples: list[SamplePrompt] = []
    for prompt in config.sample_prompts:
        if answerable(messages_of(prompt), template, context_tokens, 1):
            samples.append(prompt)
        else:
            left_out.add("sample prompt too long", "sample_prompts")
    say_left_out("evaluate", "prompts and samples", left_out.counts)
    limit = config.heldout_conversations
    return Material(documents, known[:limit] if limit else known, asked, listed, samples, left_out)


def choose_documents(documents: Sequence[Document], bytes_per_language: int) -> list[Document]:
    """Whole documents in an order by hash until each language has `bytes_per_language` bytes (0: all of them)."""
    if not bytes_per_language:
        return list(documents)
    taken: dict[str, int] = {}
    chosen = []
    for document in sorted(documents, key=lambda one: stable_number(one.text)):
        if taken.get(document.language, 0) < bytes_per_language:
            taken[document.language] = taken.get(document.language, 0) + len(document.text.encode("utf-8"))
            chosen.append(document)
    return chosen


def measure(
    bundle: Bundle, material: Material, config: EvaluateConfig, context: StageContext, *, chat: bool
) -> Measured:
    """Everything that is measured of one model. chat: it knows the chat template; otherwise it goes on with plain text."""
    network, tokenizer = bundle.policy, bundle.tokenizer
    template = ChatTemplate(tokenizer)
    made = Measured()
    if material.documents:
        made.text = bits_per_byte(network, tokenizer, material.documents, network.config.context, device=context.device)
    examples = encode_conversations(material.conversations, template, network.config.context).examples
    if examples:
        made.accuracy = token_accuracy(network, examples, device=context.device)

    def answer(
        prompts: Sequence[Sequence[Message]], temperature: float, tokens: int, samples: int = 1
    ) -> list[Completion]:
        """`samples` replies to each prompt: the first ones of all prompts, then the second ones, and so on."""
        ids = chat_prompts(prompts, template) if chat else plain_prompts(prompts, tokenizer)
        seeds = [sample_seed(context.seed, 0, place, sample) for sample in range(samples) for place in range(len(ids))]
        settings = SamplingSettings(temperature=temperature, max_new_tokens=tokens)
        return replies(network, tokenizer, ids * samples, settings, seeds)

    prompts = [exchange.prompt for exchange in material.exchanges]
    sampled = answer(prompts, config.temperature, config.reply_tokens, config.repetition_samples)
    made.sampled = sampled[: len(prompts)]
    made.repeated = [
        sum(repeated_share(reply.text) for reply in sampled[place :: len(prompts)]) / config.repetition_samples
        for place in range(len(prompts))
    ]
    sample_prompts = [messages_of(prompt) for prompt in material.samples]
    made.samples = [
        reply.text.strip() for reply in answer(sample_prompts, config.sample_temperature, config.reply_tokens)
    ]
    if chat:
        made.likeliest = [reply.text.strip() for reply in answer(prompts, 0.0, config.reply_tokens)]
        answers = answer([question(greeting) for greeting in material.greetings], 0.0, config.greeting_tokens)
        for language in sorted({greeting["language"] for greeting in material.greetings}):
            pairs = [
                (greeting, reply.text.strip())
                for greeting, reply in zip(material.greetings, answers, strict=True)
                if greeting["language"] == language
            ]
            made.greetings[language] = greetings_report(
                [greeting["prompt"] for greeting, _ in pairs],
                [reply for _, reply in pairs],
                [greeting["references"] for greeting, _ in pairs],
            )
    return made


def reward_table(
    measured: dict[str, Measured], items: Sequence[Exchange], talking: Sequence[str], context: StageContext
) -> dict[str, Any]:
    """{"reward": mean of each talking model, "reward_gain": PPO over SFT, paired by prompt}, if there is a reward model."""
    if "reward" not in context.inputs or not items or not talking:
        return {}
    bundle = load_bundle(context.inputs["reward"], context.device)
    score = reward_scorer(bundle)
    ids = chat_prompts([exchange.prompt for exchange in items], ChatTemplate(bundle.tokenizer))
    prompts = [
        Prompt(place, exchange.prompt, prompt, exchange.source, exchange.language)
        for place, (exchange, prompt) in enumerate(zip(items, ids, strict=True))
    ]
    scores: dict[str, list[float]] = {}
    for name in talking:
        made = [
            Reply(reply.ids, reply.logprobs.tolist(), reply.finish_reason == "stop") for reply in measured[name].sampled
        ]
        scores[name] = score(prompts, made).tolist()
    table: dict[str, Any] = {"reward": {name: sum(values) / len(values) for name, values in scores.items()}}
    if "sft" in scores and "ppo" in scores:
        table["reward_gain"] = paired_mean(scores["sft"], scores["ppo"]).to_dict()
    return table


def of_language(items: Sequence[Exchange], language: str) -> list[Exchange]:
    """The exchanges in one language."""
    return [exchange for exchange in items if exchange.language == language]


def question(greeting: Greeting) -> list[Message]:
    """A greeting as a conversation that waits for its reply."""
    return [{"role": USER, "content": greeting["prompt"]}]


def messages_of(prompt: SamplePrompt) -> list[Message]:
    """The turns as messages, the user's first and last."""
    return [{"role": ASSISTANT if place % 2 else USER, "content": text} for place, text in enumerate(prompt.turns)]


def shown(prompt: SamplePrompt) -> str:
    """The turns as text for people, one a line, with an arrow before the assistant's."""
    return "\n".join(f"→ {text}" if place % 2 else text for place, text in enumerate(prompt.turns))
