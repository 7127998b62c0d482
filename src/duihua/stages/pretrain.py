"""Pre-training: learn to predict the next token of running text (Radford et al. 2018, equation 1).

The loss is -sum_i log P(u_i | u_1..u_{i-1}) over all positions of all rows, divided by their number: every position is a
target, shifted by one. Documents stream one after the other, each opened by the end-of-text token, nothing is padded. What
stands before a document in its row is seen by it, and is nothing that it follows from; `mask_documents` hides that.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from duihua import console
from duihua.data.loaders import StreamedBatches
from duihua.data.records import ADD_RECORDS, ALL_HELD_OUT, NONE_HELD_OUT, Document
from duihua.data.shards import Shard, cached_shard
from duihua.data.source import Source, SourceConfig, open_source, refuse_as_text
from duihua.errors import DataError
from duihua.evaluation.bits_per_byte import TextScore, bits_per_byte
from duihua.files import sha256_json
from duihua.models.bundle import ModelCard, save_bundle
from duihua.models.decoder import Decoder, parameter_count
from duihua.models.work import training_flops
from duihua.nn.fused_attention import one_shape
from duihua.stages.configs.pretrain import PretrainConfig
from duihua.stages.context import StageContext, StageResult
from duihua.stages.dial_plan import World, plan
from duihua.stages.first_weights import fresh_network
from duihua.stages.left_out import say_left_out
from duihua.stages.prediction import outcome, say_outcome, say_plan
from duihua.stages.stage_trainer import stage_trainer
from duihua.stages.text_meter import TextMeter, few_documents
from duihua.stages.workload import workload
from duihua.text.tokenizer import Tokenizer
from duihua.training.memory import forget_peak, peak_memory
from duihua.training.metrics_file import SAMPLE_PROMPT, SAMPLE_TEXT
from duihua.training.ranks import current, only_first_goes_on
from duihua.training.trainer import Batch, LossParts


def language_model_loss(network: nn.Module, batch: Batch) -> LossParts:
    """Summed next-token loss of a batch {"token_ids", "targets"}, both (b, t), and the number of targets.

    Where "segments" and "positions", (b, t), stand in it too, a token sees those of its own segment only.
    """
    assert isinstance(network, Decoder)
    weights = torch.ones(batch["targets"].shape, dtype=torch.float32, device=batch["targets"].device)
    hidden_btd = network.hidden(
        batch["token_ids"], positions_bt=batch.get("positions"), segments_bt=batch.get("segments")
    )
    total, _ = network.next_token_losses(hidden_btd, batch["targets"], weights)
    return LossParts(total, float(batch["targets"].numel()))


def run(config: PretrainConfig, context: StageContext) -> StageResult:
    """Train a decoder on `config.sources` with the input "tokenizer"; give a policy bundle.

    Raises ConfigError for an impossible shape, DataError for an empty corpus.
    """
    started = time.monotonic()
    tokenizer = Tokenizer.load(context.input("tokenizer"))

    def opened() -> list[Source]:
        """Afresh each time: sources count what they leave out."""
        return [open_source(source, context.data_directory) for source in config.sources]

    sources = opened()
    with current().in_turn():
        shards, repeats = token_shards(sources, config.sources, tokenizer, context.data_directory)
    planned = counted = None
    if config.dialled:
        heldout = held_out_documents(opened())
        world = World(config, context, tokenizer, shards, repeats, heldout, language_model_loss)
        planned = plan(config, context, world, started)
        config, counted = planned.config, world.counted
        forget_peak(context.device)
    shape = config.shape.decoder(tokenizer.vocabulary_size, config.length)
    began = time.monotonic()
    network, first_loss = fresh_network(config, shape, shards, repeats, context.seed, counted)
    start_seconds = time.monotonic() - began
    batches = StreamedBatches(
        shards,
        repeats,
        config.rows,
        config.length,
        config.micro_batches,
        context.seed,
        tokenizer.end_of_text_id,
        config.mask_documents,
    )
    step_tokens = config.rows * config.micro_batches * config.length
    settings = {
        "parameters": parameter_count(network),
        "tokens_per_step": step_tokens,
        "tokens": step_tokens * config.steps,
        "corpus_tokens": sum(shard.tokens for shard in shards),
        "corpus_bytes": sum(shard.text_bytes for shard in shards),
        "bytes_per_token": sum(s.text_bytes for s in shards) / sum(s.tokens for s in shards),
        "epochs": step_tokens * config.steps / batches.epoch_tokens,
        "training_flops": training_flops(shape, step_tokens * config.steps),
        **dataclasses.asdict(shape),
    }
    if planned is not None:
        settings["dial"] = {"size": planned.size, **planned.derived}
        say_plan(planned, settings["epochs"])
    console.say(
        f"pretrain: {shape.layers} layers, {shape.width} wide, {shape.heads} heads of {shape.head_width} with "
        f"{shape.key_value_heads} for keys and values, feed-forward {shape.feed_forward_width}, context {shape.context}, "
        f"vocabulary {shape.vocabulary_size:,}"
    )
    console.say(
        f"pretrain: {settings['parameters']:,} parameters, {config.steps} steps of {step_tokens:,} tokens, "
        f"{settings['epochs']:.2f} epochs of {settings['corpus_tokens']:,} tokens"
    )
    few = few_documents(held_out_documents(opened()), config.heldout_documents if config.trainer.evaluate_every else 0)
    meter = TextMeter(network, tokenizer, few, config.length, context.device) if few else None
    if not few:
        console.warn(f"pretrain: {NONE_HELD_OUT}, so bits per byte will not be measured. {ADD_RECORDS}")
    trainer = stage_trainer(
        "pretrain",
        config,
        context,
        network,
        language_model_loss,
        batches,
        steps=config.steps,
        evaluate=meter,
        facts=workload(context, config.trainer, shape, settings["bytes_per_token"]),
    )
    with one_shape():
        trained = trainer.run()
    only_first_goes_on()
    ended = time.monotonic()
    held_out = held_out_documents(sources)  # to be read to its end: what is left out is counted on the way
    scores = bits_per_byte(network, tokenizer, held_out, config.length, device=context.device) if few else {}
    for _ in held_out:
        pass
    bits = scores["all"].bits_per_byte if few else None
    say_scores(scores)
    written = meter.sample() if meter else {}
    sampled = {"prompt": written[SAMPLE_PROMPT], "after": written[SAMPLE_TEXT]} if written else {}
    left_out = {source.name: source.left_out.to_mapping() for source in sources}
    for source in sources:
        say_left_out("pretrain", source.name, source.left_out.counts)
    metrics: dict[str, Any] = {
        "parameters": settings["parameters"],
        "steps": trained.steps,
        "tokens": trained.tokens,
        "loss": trained.loss,
        "skipped_steps": trained.skipped_steps,
        **score_table(scores),
        "heldout_bytes": scores["all"].bytes if few else 0,
        **({"samples": [sampled]} if sampled else {}),
        "tokens_per_second": trained.tokens_per_second,
        "training_seconds": trained.seconds,
        "seconds": time.monotonic() - started,
        "settings": settings,
        "expected": {"first_loss": first_loss},
        "left_out": left_out,
        "terms": source_terms(sources),
    }
    if config.expected_bits_per_byte is not None:
        metrics["expected"]["bits_per_byte"] = list(config.expected_bits_per_byte)
    elif planned is not None and planned.bits is not None:
        metrics["expected"]["bits_per_byte"] = [planned.bits["low"], planned.bits["high"]]
    card = ModelCard(
        title="Duihua base model",
        stage="pretrain",
        terms=metrics["terms"],
        metrics={"held-out bits per byte": bits} if few else {},
    )
    save_bundle(context.directory, network, tokenizer, card)
    if planned is not None:
        seconds = planned.setup_seconds + start_seconds + trained.seconds + time.monotonic() - ended
        metrics["prediction"] = outcome(planned, seconds, peak_memory(context.device), bits)
        say_outcome(metrics["prediction"])
    result = StageResult(context.directory, metrics)
    result.save(context.directory)
    return result


def token_shards(
    sources: list[Source], configs: tuple[SourceConfig, ...], tokenizer: Tokenizer, data_directory: Path
) -> tuple[list[Shard], list[float]]:
    """One shard a source, made once for its content and this tokenizer, and how often each is read in an epoch."""
    shards, repeats = [], []
    for source, config in zip(sources, configs, strict=True):
        if source.kind != "text":
            refuse_as_text(source, "pretrain.sources")
        key = sha256_json([source.fingerprint(), tokenizer.fingerprint, "shard-1"])[:24]
        shards.append(cached_shard(data_directory / "shards", key, _texts(source), tokenizer))
        repeats.append(config.weight)
    if not shards:
        raise DataError("no sources", where="pretrain.sources", remedy="Name at least one")
    return shards, repeats


def held_out_documents(sources: list[Source]) -> Iterator[Document]:
    """The held-out documents of all sources, in order."""
    for source in sources:
        for record in source.records("heldout"):
            if isinstance(record, Document):
                yield record


def score_table(scores: dict[str, TextScore]) -> dict[str, dict[str, float | None]]:
    """{"bits_per_byte": {all, en, zh}, "perplexity": {...}} of what `bits_per_byte` gives; nothing where nothing was scored."""
    if not scores:
        return {}
    return {
        "bits_per_byte": {name: score.bits_per_byte for name, score in scores.items()},
        "perplexity": {name: score.perplexity for name, score in scores.items()},
    }


def say_scores(scores: dict[str, TextScore]) -> None:
    """Print held-out bits per byte, of each language too where there are several; nothing where nothing was scored."""
    if not scores or scores["all"].bits_per_byte is None:
        return
    apart = [
        f"{name} {score.bits_per_byte:.3f}" for name, score in scores.items() if name != "all" and score.bits_per_byte
    ]
    detail = f" ({', '.join(apart)})" if len(apart) > 1 else ""
    console.say(
        f"pretrain: held-out bits per byte {scores['all'].bits_per_byte:.3f}{detail}, of {scores['all'].bytes:,} bytes"
    )


def source_terms(sources: list[Source]) -> list[dict[str, str]]:
    """The terms of each source, for the result and the model card."""
    return [
        {"name": source.name, "language": source.language, **dataclasses.asdict(source.terms)} for source in sources
    ]


def _texts(source: Source) -> Iterator[str]:
    nothing = True
    for record in source.records("train"):
        assert isinstance(record, Document)
        nothing = False
        yield record.text
    if nothing:
        raise DataError(ALL_HELD_OUT, where=source.name, remedy=ADD_RECORDS)
