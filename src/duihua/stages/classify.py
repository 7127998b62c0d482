"""Fine-tuning to classify, with the language model's loss beside (Radford et al. 2018, sections 3.2, 3.3 and 4.1).

    L2 = -log P(y | x)                    equation 4: softmax of W_y at the extract token
    L1 = -sum_i log P(u_i | u_<i)         equation 1, on the task's own texts
    L3 = L2 + lambda L1                   equation 5, both written here as losses

The paper's equations are sums over the corpus; a lambda that fits short and long texts alike needs means. L2 is the mean
over the examples of a step, L1 the mean over their text tokens: every example and every token of a step counts once, so
neither padding nor splitting a step into micro-batches changes the gradient, which is g2 + lambda g1. Task tokens are
read and never predicted: L1 counts the tokens of the texts alone, and of similarity those of both orders.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from duihua.data.source import open_source
from duihua.errors import ConfigError
from duihua.evaluation.classification import ClassificationScore, score
from duihua.files import write_json
from duihua.models.bundle import ModelCard, load_bundle, merge_terms
from duihua.models.classifier import Classifier, class_probabilities
from duihua.models.decoder import Decoder, parameter_count
from duihua.models.task_bundle import TaskSettings, save_task_bundle
from duihua.stages import class_tables
from duihua.stages.class_scores import score_seeds
from duihua.stages.configs.classify import ClassifyConfig
from duihua.stages.context import StageContext, StageResult
from duihua.stages.left_out import say_left_out
from duihua.stages.pretrain import source_terms
from duihua.stages.task_examples import (
    TaskBatches,
    TaskExample,
    class_names,
    cut_counts,
    encode_records,
    label_counts,
    label_name,
    mistakes,
    option_places,
    positive_class,
    read_records,
)
from duihua.text.task_inputs import TaskInputs
from duihua.text.tokenizer import Tokenizer
from duihua.training.config import ScheduleConfig
from duihua.training.precision import compute_dtype
from duihua.training.trainer import Batch, LossParts, Trainer, TrainingResult

PREDICTIONS_FILE = "heldout_predictions.json"
"""What each seed's classifier said of each held-out example, beside the truth: what a paired comparison needs."""

_DOES: Mapping[str, str] = MappingProxyType(
    {
        "classification": "Classifies texts",
        "entailment": "Classifies pairs of texts in order",
        "similarity": "Classifies pairs of texts in either order",
        "multiple_choice": "Chooses between options",
    }
)


class JointLoss:
    """L3 of a micro-batch, times its examples; the weight is their number."""

    def __init__(self, auxiliary_weight: float) -> None:
        self.auxiliary_weight = auxiliary_weight

    def __call__(self, network: nn.Module, batch: Batch) -> LossParts:
        """batch: as `TaskBatches` gives it. metrics: accuracy, class_loss an example, language_loss a token (nats)."""
        assert isinstance(network, Classifier)
        ids_rt, labels_b = batch["token_ids"], batch["labels"]
        hidden_rtd = network.hidden(ids_rt)
        logits_bc = network.class_logits(hidden_rtd, ids_rt, batch["rows"])
        total = class_loss = F.cross_entropy(logits_bc, labels_b, reduction="sum")
        examples = float(len(labels_b))
        right = float((logits_bc.argmax(dim=1) == labels_b).sum())
        metrics = {"accuracy": (right, examples), "class_loss": (float(class_loss.detach()), examples)}
        if self.auxiliary_weight:
            counted_rt = network.text_mask(ids_rt)[:, 1:]
            targets_rt = ids_rt[:, 1:].masked_fill(~counted_rt, 0)
            language_loss, _ = network.decoder.next_token_losses(hidden_rtd[:, :-1], targets_rt, counted_rt.float())
            total = class_loss + self.auxiliary_weight * batch["examples_per_token"] * language_loss
            metrics["language_loss"] = (float(language_loss.detach()), float(counted_rt.sum()))
        return LossParts(total, examples, metrics)


@dataclass(frozen=True)
class Data:
    """Everything that the seeds of a stage share. labels: the classes, or the places of the options as "0", "1", ..."""

    train: list[TaskExample]
    test: list[TaskExample]
    truth: list[str]
    classes: tuple[str, ...]
    labels: tuple[str, ...]
    inputs: TaskInputs
    tokenizer: Tokenizer


def run(config: ClassifyConfig, context: StageContext) -> StageResult:
    """Train a classifier on `config.source` from the input "policy" (or from random weights); give a classifier bundle.

    Raises ConfigError for a source that does not fit the task or inputs that do not fit the config, DataError for one
    class only, an unknown class in the held-out part, or nothing to learn from.
    """
    started = time.monotonic()
    start = _Start(config, context)
    source = open_source(config.source, context.data_directory)
    where = f"classify.source, {source.name}"
    records = read_records(source, "train", config.task)
    left_out = {"train": source.left_out.to_mapping()}
    say_left_out("classify", f"{source.name}, train", source.left_out.counts)
    tested = read_records(source, "heldout", config.task, config.test_limit)
    left_out["heldout"] = source.left_out.to_mapping()
    if left_out["heldout"] != left_out["train"]:
        say_left_out("classify", f"{source.name}, heldout", source.left_out.counts)
    classes = class_names(records, where)
    positive = positive_class(config.positive_class, classes)
    length = _length(config, start.shape.context)
    inputs = TaskInputs(start.tokenizer, start.shape.vocabulary_size, config.task, length)
    data = Data(
        encode_records(records, inputs, classes, where),
        encode_records(tested, inputs, classes, where),
        [label_name(record) for record in tested],
        classes,
        classes or option_places([*records, *tested]),
        inputs,
        start.tokenizer,
    )
    cut = {"train": cut_counts(data.train), "heldout": cut_counts(data.test)}
    class_tables.announce(len(classes), length, cut, config.auxiliary_weight)

    settings = TaskSettings(config.task, classes, length, config.classifier_dropout, config.pooling)
    answers: list[list[str]] = []
    for number in range(config.seeds):
        seed = context.seed + number
        folder = context.directory if number == 0 else context.directory / "seeds" / str(seed)
        classifier, trained = train_one(config, context, start, data, seed, folder)
        answers.append(predictions(classifier, data, config, context))
        if number == 0:
            kept, first = classifier, trained
    trained_on = [label_name(record) for record in records]
    scores = score_seeds(data.truth, answers, data.labels, positive, trained_on, context.seed)
    write_json(context.directory / PREDICTIONS_FILE, {"truth": data.truth, "predicted": answers})
    terms = merge_terms(start.terms, source_terms([source]))
    metrics: dict[str, Any] = {
        "task": config.task,
        "classes": list(classes),
        "from_scratch": start.random,
        "parameters": parameter_count(kept),
        "examples": {"train": label_counts(records), "heldout": label_counts(tested)},
        "cut": cut,
        "left_out": left_out,
        "length": length,
        "steps": first.steps,
        "tokens": first.tokens,
        "loss": first.loss,
        "skipped_steps": first.skipped_steps,
        **{name: first.last_metrics[name] for name in ("class_loss", "language_loss") if name in first.last_metrics},
        **scores.metrics(),
        "mistakes": mistakes(tested, answers[0]),
        "terms": [dict(row) for row in terms],
        "tokens_per_second": first.tokens_per_second,
        "training_seconds": first.seconds,
        "seconds": time.monotonic() - started,
    }
    class_tables.show(metrics)
    card = ModelCard(
        title="Duihua classifier",
        stage="classify",
        description=f"{_DOES[config.task]}, learnt from {source.name} by GPT-1's joint objective with lambda "
        f"{config.auxiliary_weight:g}. Ask it with `duihua classify DIR --predict FILE`; what other programs "
        "read here is its trunk, a language model.",
        terms=terms,
        metrics=scores.card(),
    )
    save_task_bundle(context.directory, kept, start.tokenizer, card, settings)
    result = StageResult(context.directory, metrics)
    result.save(context.directory)
    return result


class _Start:
    """What training starts from: the input policy, its shape with random weights, or the config's shape."""

    def __init__(self, config: ClassifyConfig, context: StageContext) -> None:
        self.policy: Path | None = context.inputs.get("policy")
        self.random = config.from_scratch or self.policy is None
        self.terms: list[dict[str, str]] = []
        if self.policy is not None:
            bundle = load_bundle(self.policy)
            self.tokenizer, self.shape = bundle.tokenizer, bundle.policy.config
            self.terms = [] if config.from_scratch else [dict(row) for row in bundle.terms]
        elif "tokenizer" in context.inputs:
            self.tokenizer = Tokenizer.load(context.inputs["tokenizer"])
            self.shape = config.shape.decoder(self.tokenizer.vocabulary_size, config.context)
        else:
            raise ConfigError(
                "there is nothing to start from",
                where="classify",
                remedy="Give a base model (--input policy=DIR), or a tokenizer to train from random weights",
            )

    def decoder(self, seed: int) -> Decoder:
        """A fresh one: the policy's weights, or random ones of this seed."""
        if self.random:
            return Decoder(self.shape).initialise(seed)
        assert self.policy is not None
        return load_bundle(self.policy).policy


def train_one(
    config: ClassifyConfig, context: StageContext, start: _Start, data: Data, seed: int, folder: Path
) -> tuple[Classifier, TrainingResult]:
    """One training with one seed (of W_y, of dropout and of the order of the examples), resumed where it was stopped."""
    torch.manual_seed(seed)
    classifier = Classifier(
        start.decoder(seed), config.task, len(data.classes), config.classifier_dropout, config.pooling
    )
    classifier.initialise(seed)
    if not config.auxiliary_weight and not start.shape.tied_embeddings:
        classifier.decoder.head.weight.requires_grad_(False)  # it gets no gradient: do not make moments for it
    batches = TaskBatches(
        data.train,
        batch=config.batch,
        micro_batch=config.micro_batch,
        pad_id=data.tokenizer.pad_id,
        vocabulary_size=start.shape.vocabulary_size,
        seed=seed,
    )
    steps = config.epochs * batches.steps_an_epoch

    def scored(answer: list[str]) -> ClassificationScore:
        return score(data.truth, answer, data.labels)

    trainer = Trainer(
        classifier,
        JointLoss(config.auxiliary_weight),
        batches,
        steps=steps,
        optimizer=config.optimizer,
        schedule=ScheduleConfig(kind="linear", warmup_steps=max(1, round(config.warmup_share * steps))),
        config=config.trainer,
        directory=folder,
        device=context.device,
        seed=seed,
        evaluate=lambda _: {"heldout_accuracy": scored(predictions(classifier, data, config, context)).accuracy.value},
        label="classify" if seed == context.seed else f"classify, seed {seed}",
    )
    trained = trainer.run()
    classifier.eval()
    return classifier, trained


def predictions(classifier: Classifier, data: Data, config: ClassifyConfig, context: StageContext) -> list[str]:
    """What the classifier says of each held-out example; dropout is off."""
    chances = class_probabilities(
        classifier,
        [example.input for example in data.test],
        data.tokenizer.pad_id,
        micro_batch=max(64, config.micro_batch),
        dtype=compute_dtype(config.trainer.precision, context.device),
    )
    return [data.labels[max(range(len(chance)), key=chance.__getitem__)] for chance in chances]


def _length(config: ClassifyConfig, context: int) -> int:
    if config.length > context:
        raise ConfigError(
            f"sequences of {config.length} tokens are longer than the model's context of {context}",
            where="classify.length",
            remedy=f"Choose {context} or less",
        )
    return config.length or context
