"""Supervised fine-tuning: the base model learns to answer (Ouyang et al. 2022, section 3.5; Radford et al. 2018, 3.2).

The loss is next-token cross-entropy on what the assistant says and on the stop token of its turn, and on nothing else:
what the user says is read, not imitated, and a model that is never taught its stop token never stops. Conversations are
packed into rows (data/packing.py): attention stays inside a conversation and positions start again with each, so that
the packed loss is the loss of each conversation alone.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Any

from torch import nn

from duihua import console
from duihua.data.packing import PackedBatches, encode_conversations
from duihua.data.pairs import exchanges, shuffled
from duihua.data.records import Conversation, LeftOut, Message
from duihua.engine.settings import SamplingSettings
from duihua.errors import ConfigError
from duihua.evaluation.accuracy import accuracy_of
from duihua.models.bundle import ModelCard, load_bundle, merge_terms, save_bundle
from duihua.models.decoder import Decoder, parameter_count
from duihua.nn.attention import columns_where
from duihua.nn.lora import add_lora
from duihua.stages.configs.sft import SFTConfig
from duihua.stages.context import StageContext, StageResult
from duihua.stages.held_out import answerable, chat_prompts, conversations, held_out_by_source, replies
from duihua.stages.left_out import say_left_out
from duihua.stages.low_rank import finish_lora
from duihua.stages.memorisation import memorised, say_memorised
from duihua.stages.offered_prompts import offered_prompts
from duihua.stages.pretrain import source_terms
from duihua.stages.prompts import open_sources, require_stop_token
from duihua.stages.source_losses import Losses, learnt_sources, source_meter, with_evaluations
from duihua.stages.stage_trainer import stage_trainer
from duihua.stages.workload import workload
from duihua.text.chat_template import ChatTemplate
from duihua.training.ranks import only_first_goes_on
from duihua.training.trainer import Batch, LossParts


def sft_loss(network: nn.Module, batch: Batch) -> LossParts:
    """-sum_t w_t log P(x_{t+1} | what stands before it in its own conversation), and sum_t w_t.

    batch: "token_ids", "targets", "positions", "segments" and "weights", all (b, t); w_t is 1 on the assistant's tokens.
    """
    assert isinstance(network, Decoder)
    weights_bt = batch["weights"]
    columns_br = columns_where(weights_bt != 0)
    hidden_brd = network.hidden(
        batch["token_ids"], positions_bt=batch["positions"], segments_bt=batch["segments"], columns_br=columns_br
    )
    targets_br, weights_br = batch["targets"].gather(1, columns_br), weights_bt.gather(1, columns_br)
    total, _ = network.next_token_losses(hidden_brd, targets_br, weights_br)
    return LossParts(total, float(weights_bt.sum()))


def run(config: SFTConfig, context: StageContext) -> StageResult:
    """Fine-tune the input "policy" on `config.sources`; give a policy bundle.

    Raises ConfigError for a source of another kind or a row longer than the model's context, DataError where no
    conversation can be learnt from.
    """
    started = time.monotonic()
    bundle = load_bundle(context.input("policy"), context.device)
    network, tokenizer = bundle.policy, bundle.tokenizer
    template = ChatTemplate(tokenizer)
    require_stop_token(template, str(context.input("policy")))
    length = row_length(config, network.config.context)
    sources = open_sources(config.sources, context.data_directory, "conversations", "sft.sources")
    learnt, read, figures = [], [], []
    for source, settings in zip(sources, config.sources, strict=True):
        read.append((conversations(source, "train"), settings.weight))
        encoded = encode_conversations(read[-1][0], template, length, config.long_conversations)
        learnt.append((encoded.examples, settings.weight))
        left_out = Counter(source.left_out.counts) + encoded.left_out
        say_left_out("sft", source.name, left_out)
        figures.append(
            {
                "name": source.name,
                "language": source.language,
                "conversations": encoded.conversations,
                "tokens": encoded.tokens,
                "learnt_tokens": encoded.learnt_tokens,
                "weight": settings.weight,
                "left_out": dict(left_out.most_common()),
            }
        )
    batches = PackedBatches(
        learnt,
        row_length=length,
        rows=max(1, config.batch_tokens // length),
        micro_rows=max(1, config.micro_batch_tokens // length),
        pad_id=tokenizer.pad_id,
        seed=context.seed,
    )
    held_out = held_out_by_source(sources, config.heldout_conversations)
    parts = learnt_sources(sources, read, held_out, config)
    meter = source_meter(network, parts, held_out, config, template, length, context.device)
    console.say(
        f"sft: {sum(len(part) for part, _ in learnt):,} conversations, {config.steps} steps of "
        f"{batches.rows * length:,} tokens, an epoch is {batches.rows_an_epoch:,} rows of {length}"
    )
    offered = offered_prompts(read, config.offered_prompts)
    prompts = sample_prompts(
        held_out.conversations, config.samples, template, network.config.context, config.reply_tokens
    )
    terms = source_terms(sources)
    epochs = config.steps * batches.rows / batches.rows_an_epoch
    before = meter.measure()
    replies_before = greedy_replies(network, template, prompts, config.reply_tokens)
    if config.lora is not None:
        add_lora(network, config.lora, context.seed)
    trainer = stage_trainer(
        "sft",
        with_evaluations(config, meter.tokens),
        context,
        network,
        sft_loss,
        batches,
        steps=config.steps,
        evaluate=meter,
        facts=None
        if config.lora
        else workload(context, config.trainer, dataclasses.replace(network.config, context=length)),
    )
    trained = trainer.run()
    only_first_goes_on()
    adapted = finish_lora(network, config.lora, bundle, context.directory, "sft", terms) if config.lora else {}
    after = meter.measure()
    replies_after = greedy_replies(network, template, prompts, config.reply_tokens)
    by_heart = memorised(network, parts, after, config, template, epochs)
    say_memorised(by_heart)
    at_the_end = after if config.trainer.end_with == "last" else None
    metrics: dict[str, Any] = {
        "parameters": parameter_count(network),
        **adapted,
        "steps": trained.steps,
        "tokens": trained.tokens,
        "loss": trained.loss,
        "skipped_steps": trained.skipped_steps,
        **heldout_table(after),
        **({"before": heldout_table(before)} if meter.heldout else {}),
        "heldout_conversations": len(meter.heldout),
        "memorised": {**by_heart, "curve": meter.curve(context.directory, before, at_the_end, config.steps)},
        "sources": figures,
        "settings": {"length": length, "rows": batches.rows, "rows_an_epoch": batches.rows_an_epoch},
        "samples": [
            {"prompt": prompt[-1]["content"], "messages": prompt, "before": old, "after": new}
            for prompt, old, new in zip(prompts, replies_before, replies_after, strict=True)
        ],
        "terms": terms,
        "tokens_per_second": trained.tokens_per_second,
        "training_seconds": trained.seconds,
        "seconds": time.monotonic() - started,
    }
    card = ModelCard(
        title="Duihua chat model",
        stage="sft",
        description="Fine-tuned on conversations, with loss on the assistant's tokens and its stop token.",
        terms=merge_terms(bundle.terms, terms),
        metrics=heldout_table(after),
        prompts=offered or bundle.prompts,
    )
    save_bundle(context.directory, network, tokenizer, card)
    result = StageResult(context.directory, metrics)
    result.save(context.directory)
    return result


def row_length(config: SFTConfig, context: int) -> int:
    """Tokens of a row: the config's, or the model's context. ConfigError where the model cannot read so many."""
    if config.length > context:
        raise ConfigError(
            f"rows of {config.length} tokens are longer than the model's context of {context}",
            where="sft.length",
            remedy=f"Choose {context} or less",
        )
    return config.length or context


def sample_prompts(
    held_out: Sequence[Conversation], count: int, template: ChatTemplate, context: int, reply_tokens: int
) -> list[list[Message]]:
    """`count` prompts out of held-out conversations: all messages before one of the assistant's turns."""
    found = shuffled(exchanges(held_out, LeftOut()), 0)
    fitting = (e.prompt for e in found if answerable(e.prompt, template, context, reply_tokens))
    return list(islice(fitting, count))


def greedy_replies(
    network: Decoder, template: ChatTemplate, prompts: Sequence[Sequence[Message]], reply_tokens: int
) -> list[str]:
    """The likeliest reply to each prompt, token by token."""
    settings = SamplingSettings(temperature=0.0, max_new_tokens=reply_tokens)
    made = replies(network, template.tokenizer, chat_prompts(prompts, template), settings)
    return [reply.text.strip() for reply in made]


def heldout_table(losses: Losses) -> dict[str, Any]:
    """Loss and accuracy on held-out conversations, as they stand in result.json; nothing where there are none."""
    if not losses.heldout:
        return {}
    measured = accuracy_of(losses.heldout)
    return {"heldout_loss": measured.loss, "heldout_token_accuracy": measured.accuracy.to_dict()}
