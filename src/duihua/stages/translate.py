"""Training a translator: teacher forcing, smoothed targets (Vaswani et al. 2017, section 5; Szegedy et al. 2016, section 7).

    q(v) = (1 - e) [v = y] + e / V          what the network is asked for at each place of the target, e = label_smoothing
    L = - sum_v q(v) log p(v)               summed over the real tokens of a step, divided by their number

Source and target are cut by one byte-level BPE that is learnt from the training pairs of both languages together (section
5.1), batches hold about as many tokens each, the rate is the paper's (section 5.3). At each evaluation the validation loss
(of the unsmoothed targets, so that runs with different smoothing compare), the BLEU of a greedy translation, and a snapshot
of the weights are taken; the model is the mean of the last snapshots (section 6.1). The test part is translated once, at the
end, by beam search.
"""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from duihua import console
from duihua.data.parallel.batches import EncodedPair, TokenBatches, padded_batch
from duihua.data.source import open_source
from duihua.engine.translation_model import TranslationModel, greedy, model_inputs
from duihua.errors import ConfigError
from duihua.evaluation.bleu import bleu
from duihua.models.model_card import ModelCard
from duihua.models.recurrent_translator import RecurrentTranslator
from duihua.models.transformer import Transformer
from duihua.models.transformer_config import TransformerConfig
from duihua.models.translator import Translator
from duihua.stages.configs.translate import TranslateConfig
from duihua.stages.context import StageContext, StageResult
from duihua.stages.left_out import say_left_out
from duihua.stages.pretrain import source_terms
from duihua.stages.stage_trainer import stage_trainer
from duihua.stages.translation_pairs import Pairs, encode_pairs, learn_vocabulary, questions, read_pairs
from duihua.stages.translation_results import curve, samples, show, test_scores
from duihua.text.translation_inputs import TranslationInputs
from duihua.training.averaging import Snapshots, put, stored_weights
from duihua.training.metrics_file import read_metrics
from duihua.training.precision import autocast, compute_dtype
from duihua.training.trainer import Batch, LossParts

SNAPSHOTS = "snapshots"
Network = Transformer | RecurrentTranslator


class TranslationLoss:
    """Smoothed cross-entropy of a batch as `TokenBatches` gives it; the weight is its number of target tokens."""

    def __init__(self, smoothing: float) -> None:
        self.smoothing = smoothing

    def __call__(self, network: nn.Module, batch: Batch) -> LossParts:
        """metrics: plain_loss, the cross-entropy of the right tokens alone (nats a token)."""
        assert isinstance(network, Transformer | RecurrentTranslator)
        hidden = network.hidden(batch["source"], batch["source_mask"], batch["target"])
        total, losses = network.next_token_losses(hidden, batch["next"], batch["weights"], self.smoothing)
        tokens = float(batch["weights"].sum())
        return LossParts(total, tokens, {"plain_loss": (float((losses * batch["weights"]).sum()), tokens)})


@dataclass(frozen=True)
class Asked:
    """What a direction is asked: texts, all known translations of each."""

    direction: tuple[str, str]
    sources: list[str]
    references: list[list[str]]


class Validation:
    """What is looked at during training, and the snapshots that are taken then."""

    def __init__(self, config: TranslateConfig, context: StageContext, model: TranslationModel, pairs: Pairs) -> None:
        """Raises ConfigError where the best weights are asked for and there is nothing that tells which they are."""
        self.config, self.context, self.model = config, context, model
        longest = model.network.config.most_tokens
        self.pairs = encode_pairs(
            pairs.validation, config.directions, model.inputs, longest, pairs.left_out, "validation"
        )
        self.tests = [
            Asked(direction, *questions(pairs.validation, direction, config.validation_pairs))
            for direction in config.directions
            if pairs.validation
        ]
        if config.keep == "best" and not self.pairs:
            raise ConfigError(
                "the best weights are chosen by the BLEU of the validation part, and the sources have no such part",
                where="translate.keep",
                remedy="Set keep: averaged or last, or name a source with a validation part",
            )
        self.snapshots = Snapshots(context.directory / SNAPSHOTS, config.average)

    def __call__(self, step: int) -> dict[str, float | str]:
        """Measure the present weights and keep them. Running it again for the same step changes nothing."""
        found = self.measure()
        past = [
            line["validation_bleu"]
            for line in read_metrics(self.context.directory / "metrics.jsonl")
            if "validation_bleu" in line and line["step"] < step
        ]
        best = bool(found) and (not past or float(found["validation_bleu"]) > max(past))
        self.snapshots.save(step, self._module(), best)
        return found

    def measure(self) -> dict[str, float | str]:
        """validation_loss (nats a token), validation_perplexity, validation_bleu with its signature (the mean of both
        directions where there are two); nothing without a validation part."""
        if not self.pairs:
            return {}
        loss = token_loss(self.model.network, self.pairs, self.config, self.context.device)
        scores = [
            bleu([found[0].text for found in self._greedy(test)], test.references, test.direction[1])
            for test in self.tests
        ]
        return {
            "validation_loss": loss,
            "validation_perplexity": math.exp(min(loss, 50.0)),
            "validation_bleu": sum(score.value for score in scores) / len(scores),
            "validation_bleu_signature": " and ".join(dict.fromkeys(score.signature for score in scores)),
        }

    def _greedy(self, test: Asked) -> Any:
        return self.model.translate(test.sources, test.direction, greedy(self.config.search), cut=True)

    def _module(self) -> nn.Module:
        assert isinstance(self.model.network, nn.Module)
        return self.model.network


def run(config: TranslateConfig, context: StageContext) -> StageResult:
    """Train a translator on `config.sources`; give its bundle. Needs no input.

    Raises ConfigError for a shape or vocabulary that is impossible, DataError for sources of other languages or without pairs.
    """
    started = time.monotonic()
    sources = [open_source(source, context.data_directory) for source in config.sources]
    pairs = read_pairs(sources, config.directions[0])
    tokenizer = learn_vocabulary(pairs, config.vocabulary_size)
    inputs = model_inputs(tokenizer, config.directions)
    network = new_network(config, inputs).initialise(context.seed).to(context.device)
    model = TranslationModel(network, inputs, config.directions)
    validation = Validation(config, context, model, pairs)
    groups = [
        encode_pairs(group, config.directions, inputs, config.longest, pairs.left_out, "training")
        for group in pairs.train
    ]
    batches = TokenBatches(
        groups,
        [source.weight for source in config.sources],
        batch_tokens=config.batch_tokens,
        micro_batches=config.micro_batches,
        start_id=inputs.start_id,
        pad_id=inputs.pad_id,
        seed=context.seed,
    )
    steps = max(1, round(config.epochs * batches.batches_an_epoch / config.micro_batches))
    parameters = sum(weight.numel() for weight in network.parameters())
    counts = pairs.counts()
    say_left_out("translate", "the pairs", pairs.left_out.counts)
    console.say(
        f"translate: {' and '.join('-'.join(each) for each in config.directions)}, {parameters:,} parameters, "
        f"{counts['train']:,} training, {counts['validation']:,} validation and {counts['test']:,} test pairs, "
        f"{steps:,} steps, {batches.padding:.1%} padding"
    )
    trainer = stage_trainer(
        "translate",
        config,
        context,
        network,
        TranslationLoss(config.label_smoothing),
        batches,
        steps=steps,
        evaluate=validation,
    )
    trained = trainer.run()
    kept, compared = choose_weights(config, network, validation, trained.steps)
    network.eval()
    tested = test_scores(config, model, pairs)
    metrics: dict[str, Any] = {
        "directions": ["-".join(each) for each in config.directions],
        "network": config.network,
        "parameters": parameters,
        "vocabulary_size": inputs.vocabulary_size,
        "pairs": counts,
        "left_out": pairs.left_out.to_mapping(),
        "steps": trained.steps,
        "epochs": config.epochs,
        "tokens": trained.tokens,
        "padding": batches.padding,
        "loss": trained.loss,
        "skipped_steps": trained.skipped_steps,
        "plain_loss": trained.last_metrics.get("plain_loss"),
        "kept": kept,
        "candidates": compared,
        "curve": curve(context),
        "test": {name: scores.to_dict() for name, (scores, _) in tested.items()},
        "search": dataclasses.asdict(config.search),
        "samples": samples(config, model, tested),
        "tokens_per_second": trained.tokens_per_second,
        "training_seconds": trained.seconds,
        "seconds": time.monotonic() - started,
        "terms": source_terms(sources),
        "settings": dataclasses.asdict(network.config),
    }
    show(metrics)
    card = ModelCard(
        title=f"Duihua translator, {' and '.join(' to '.join(each) for each in config.directions)}",
        stage="translate",
        description="Learnt from "
        + ", ".join(source.name for source in sources)
        + ". Ask it with `duihua translate run DIR`; other programs do not read this form.",
        terms=metrics["terms"],
        metrics={
            name: {
                "BLEU": f"{scores.bleu.value:.2f} ({scores.bleu.signature})",
                "chrF": f"{scores.chrf.value:.2f} ({scores.chrf.signature})",
            }
            for name, (scores, _) in tested.items()
        },
    )
    model.save(context.directory, card)
    result = StageResult(context.directory, metrics)
    result.save(context.directory)
    return result


def new_network(config: TranslateConfig, inputs: TranslationInputs) -> Network:
    """The chosen network over the vocabulary of `inputs`, without trained weights."""
    ids = {
        "vocabulary_size": inputs.vocabulary_size,
        "start_id": inputs.start_id,
        "end_id": inputs.end_id,
        "pad_id": inputs.pad_id,
    }
    if isinstance(config.shape, TransformerConfig):
        return Transformer(dataclasses.replace(config.shape, **ids))  # type: ignore[arg-type]
    return RecurrentTranslator(dataclasses.replace(config.shape, **ids))  # type: ignore[arg-type]


def token_loss(network: Translator, pairs: list[EncodedPair], config: TranslateConfig, device: str) -> float:
    """Mean cross-entropy of the right tokens in nats, end tokens included, without smoothing; dropout is off."""
    assert isinstance(network, nn.Module)
    shape = network.config
    measured, dtype = TranslationLoss(0.0), compute_dtype(config.trainer.precision, torch.device(device))
    ordered = sorted(pairs, key=lambda pair: (len(pair.target), len(pair.source)))
    total, tokens = 0.0, 0.0
    network.eval()
    rows = max(1, config.batch_tokens // (2 * shape.most_tokens)) * 4
    with torch.inference_mode():
        for start in range(0, len(ordered), rows):
            batch = padded_batch(ordered[start : start + rows], shape.start_id, shape.pad_id)
            with autocast(dtype, torch.device(device)):
                parts = measured(network, {name: tensor.to(device) for name, tensor in batch.items()})
            total, tokens = total + float(parts.sum), tokens + parts.weight
    return total / tokens


def choose_weights(
    config: TranslateConfig, network: nn.Module, validation: Validation, step: int
) -> tuple[str, dict[str, Any]]:
    """Put the weights that `config.keep` asks for into the network; (which, what each candidate scores on validation). Where
    there is no validation part nothing was called best, and nothing is scored."""
    last = stored_weights(network)
    every = config.trainer.evaluate_every
    if not every or step % every:  # the last steps have no snapshot yet
        validation(step)
    candidates = {"last": last, "averaged": validation.snapshots.averaged()}
    if validation.pairs:
        candidates["best"] = validation.snapshots.best()
    compared: dict[str, Any] = {"averaged_snapshots": len(validation.snapshots.paths())}
    for name, weights in candidates.items():
        put(network, weights)
        compared[name] = validation.measure()
    put(network, candidates[config.keep])
    return config.keep, compared
