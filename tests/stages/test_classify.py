"""The classifier stage: its loss by itself, what it learns, what it keeps, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from duihua.data.records import Choice, Labelled
from duihua.data.source import SourceConfig
from duihua.engine.classifier_model import ClassifierModel, Question
from duihua.errors import BundleError, ConfigError, DataError
from duihua.files import read_json, sha256_file
from duihua.models.bundle import load_bundle
from duihua.models.classifier import Classifier
from duihua.models.task_bundle import is_task_bundle, load_task_bundle
from duihua.report.page import write_report
from duihua.stages import classify
from duihua.stages.classify import JointLoss
from duihua.stages.configs.classify import ClassifyConfig
from duihua.stages.configs.pretrain import ShapeConfig
from duihua.stages.context import StageContext, StageResult
from duihua.stages.task_examples import TaskBatches, TaskExample, cut_counts, mistakes
from duihua.text.task_inputs import TASKS, Task, TaskInputs
from duihua.training.config import OptimizerConfig, TrainerConfig

ANIMALS, COLOURS = ("cat", "dog", "bird"), ("red", "blue", "green")
NUMBERS = ("one", "two", "three", "four")


def write(path: Path, lines: Sequence[dict[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(path)


def rows(task: Task, count: int, shift: int = 0) -> list[dict[str, Any]]:
    """A small task: which animal the text names; whether either text names the cat; which option names an animal."""
    made: list[dict[str, Any]] = []
    for i in range(shift, shift + count):
        animal, colour = ANIMALS[i % 3], COLOURS[(i // 3) % 3]
        filler = f"{NUMBERS[(i // 9) % 4]} {i}"
        if task == "classification":
            made.append({"text": f"{filler} {animal} {colour}", "label": animal})
        elif task == "multiple_choice":
            options = [f"{animal} sings", f"{colour} sings"]
            made.append({"context": filler, "options": options[:: 1 if i % 5 < 3 else -1], "answer": int(i % 5 >= 3)})
        else:
            texts = [f"{filler} {'cat' if i % 5 < 2 else 'dog'}", f"{colour} bird"][:: 1 if i % 2 else -1]
            made.append({"text": texts[0], "text_b": texts[1], "label": "yes" if i % 5 < 2 else "no"})
    return made


def source(folder: Path, task: Task, train: int = 160, test: int = 90) -> SourceConfig:
    kind: Any = "choices" if task == "multiple_choice" else "labelled"
    return SourceConfig(
        path=write(folder / "train.jsonl", rows(task, train)),
        heldout=write(folder / "test.jsonl", rows(task, test, shift=train)),
        kind=kind,
        language="en",
    )


def settings(folder: Path, task: Task = "classification", **changes: Any) -> ClassifyConfig:
    base = ClassifyConfig(
        task=task, source=source(folder, task), epochs=3, batch=16, micro_batch=16,
        optimizer=OptimizerConfig(kind="adamw", learning_rate=3e-3, beta1=0.9, beta2=0.999, weight_decay=0.01),
        trainer=TrainerConfig(log_every=5, checkpoint_seconds=1e9),
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


@pytest.fixture(scope="module")
def policy(lab: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lab.policy_bundle(tmp_path_factory.mktemp("policy") / "base", seed=7)  # type: ignore[no-any-return]


def context(policy: Path, directory: Path, **changes: Any) -> StageContext:
    return dataclasses.replace(StageContext(directory, {"policy": policy}, seed=3, threads=1), **changes)


# -- the loss ---------------------------------------------------------------------------------------------------------


class Plain:
    """The gradients of equations 4 and 1 by themselves, with full logits and torch's own cross-entropy."""

    def __init__(self, lab: Any, task: Task = "similarity") -> None:
        torch.manual_seed(0)
        self.network = Classifier(lab.decoder(), task, 2, dropout=0.1).initialise(0).eval()
        inputs = TaskInputs(lab.tokenizer, lab.tokenizer.vocabulary_size, task, 40)
        texts = [
            ("one cat", "two cat"), ("red dog", "blue dog sings"), ("four birds", "a"),
            ("three three three", "one two three four red blue green"), ("dog", "cat runs"), ("x", "sleeps sleeps"),
        ]  # fmt: skip
        self.examples = [TaskExample(inputs.encode(pair), n % 2) for n, pair in enumerate(texts)]
        self.lab = lab

    def batches(self, micro_batch: int) -> TaskBatches:
        return TaskBatches(
            self.examples, batch=6, micro_batch=micro_batch, pad_id=self.lab.tokenizer.pad_id,
            vocabulary_size=self.lab.tokenizer.vocabulary_size, seed=0,
        )  # fmt: skip

    def gradient(self, loss: Callable[[], Tensor]) -> Tensor:
        """All gradients in one vector."""
        self.network.zero_grad()
        loss().backward()  # type: ignore[no-untyped-call]
        return torch.cat([
            (weight.grad if weight.grad is not None else torch.zeros_like(weight)).flatten()
            for weight in self.network.parameters()
        ])  # fmt: skip

    def joint(self, auxiliary_weight: float, micro_batch: int = 6) -> Tensor:
        """As the Trainer does it: the gradients of the micro-batches' sums over the weight of the step."""
        parts = self.batches(micro_batch).next()
        loss = JointLoss(auxiliary_weight)

        def total() -> Tensor:
            found = [loss(self.network, part) for part in parts]
            return torch.stack([part.sum for part in found]).sum() / sum(part.weight for part in found)

        return self.gradient(total)

    def class_loss(self) -> Tensor:
        logits, labels = [], []
        for example in self.examples:
            vectors = [self.network.hidden(torch.tensor([row]))[0, -1] for row in example.input.rows]
            logits.append(self.network.score(vectors[0] + vectors[1]))
            labels.append(example.label)
        return F.cross_entropy(torch.stack(logits), torch.tensor(labels))

    def language_losses(self) -> list[Tensor]:
        """-log P of every token of every text, a tensor a sequence."""
        size = self.lab.tokenizer.vocabulary_size
        losses = []
        for example in self.examples:
            for row in example.input.rows:
                chances = torch.log_softmax(self.network.decoder.head(self.network.hidden(torch.tensor([row]))[0]), -1)
                losses.append(torch.stack([-chances[t - 1, id] for t, id in enumerate(row) if id < size]))
        return losses


def test_the_gradient_of_the_joint_loss_is_g2_plus_lambda_g1(lab: Any) -> None:
    plain = Plain(lab)
    g2 = plain.gradient(plain.class_loss)
    g1 = plain.gradient(lambda: torch.cat(plain.language_losses()).mean())
    assert g1.norm() > 0.1 and g2.norm() > 0.1
    for micro_batch in (6, 4, 1):
        for weight in (0.0, 0.5, 2.0):
            joint = plain.joint(weight, micro_batch)
            assert (joint - (g2 + weight * g1)).abs().max() < 1e-5, (micro_batch, weight)
    joint = plain.joint(0.5, 4)
    assert (joint - (g2 + 0.4 * g1)).abs().max() > 1e-3  # negative control: another lambda
    # negative control: the mean of the sequences' means, in which a token of a short text counts more
    uneven = plain.gradient(lambda: torch.stack([losses.mean() for losses in plain.language_losses()]).mean())
    assert (joint - (g2 + 0.5 * uneven)).abs().max() > 1e-3


def test_task_tokens_are_never_predicted(lab: Any) -> None:
    plain = Plain(lab)
    counted = JointLoss(1.0)(plain.network, plain.batches(6).next()[0]).metrics["language_loss"]
    losses = torch.cat(plain.language_losses())
    assert counted[1] == len(losses) == sum(len(row) - 3 for e in plain.examples for row in e.input.rows)
    assert counted[0] == pytest.approx(float(losses.detach().sum()), rel=1e-5)


# -- batches ----------------------------------------------------------------------------------------------------------


def test_an_epoch_holds_every_example_once_and_batches_of_like_length(lab: Any) -> None:
    inputs = TaskInputs(lab.tokenizer, lab.tokenizer.vocabulary_size, "classification", 64)
    examples = [TaskExample(inputs.encode(["cat " * (1 + n * 13 % 17) + str(n)]), n % 2) for n in range(50)]

    def batches() -> TaskBatches:
        return TaskBatches(
            examples, batch=8, micro_batch=4, pad_id=0, vocabulary_size=lab.tokenizer.vocabulary_size, seed=1
        )

    source = batches()
    assert source.steps_an_epoch == 7
    steps = [source.next() for _ in range(7)]
    seen = [tuple(row.tolist()) for step in steps for part in step for row in part["token_ids"]]
    rows = {tuple(example.input.rows[0]) for example in examples}
    assert len(seen) == 50
    assert {row[: row.index(inputs.tokens.extract) + 1] for row in seen} == rows
    assert sorted(sum(len(part["labels"]) for part in step) for step in steps) == [2, *[8] * 6]
    cells = sum(part["token_ids"].numel() for step in steps for part in step)
    assert cells < 1.25 * sum(map(len, rows))  # in the order given it would be 1.5 times as many and more
    resumed = batches()
    resumed.load_state_dict(source.state_dict())
    for _ in range(9):
        for one, other in zip(source.next(), resumed.next(), strict=True):
            assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_was_cut_is_counted(lab: Any) -> None:
    inputs = TaskInputs(lab.tokenizer, lab.tokenizer.vocabulary_size, "classification", 5)
    examples = [TaskExample(inputs.encode([text]), 0) for text in ("qqq", "qqqq", "qqqqqqqq")]
    assert cut_counts(examples) == {"examples": 3, "cut_examples": 2, "cut_tokens": 6, "tokens": 15}


def test_mistakes_are_drawn_by_a_hash_with_the_beginnings_of_their_texts() -> None:
    records = [Labelled((f"text {n} " + "x" * 400, "b"), "ab"[n % 2], "s", "en") for n in range(40)]
    said = ["a"] * 40
    found = mistakes(records, said)
    assert len(found) == 6 and all((one["truth"], one["predicted"]) == ("b", "a") for one in found)
    assert {one["texts"][0].split()[1] for one in found} != {str(n) for n in (1, 3, 5, 7, 9, 11)}
    assert all(len(one["texts"][0]) == 304 and one["texts"][0].endswith(" ...") for one in found)
    assert found == mistakes(records[::-1], said[::-1])
    assert mistakes(records, [record.label for record in records]) == []
    choice = Choice("c", ("first", "second"), 1, "s", "en")
    assert mistakes([choice], ["0"]) == [{"texts": ["c"], "truth": "second", "predicted": "first"}]


# -- what it learns ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_three_seeds_learn_a_small_task_far_beyond_the_majority(policy: Path, tmp_path: Path, task: Task) -> None:
    config = settings(tmp_path, task, seeds=3)
    result = classify.run(config, context(policy, tmp_path / "run"))
    metrics = result.metrics
    assert [found["seed"] for found in metrics["seeds"]] == [3, 4, 5]
    for found in metrics["seeds"]:
        assert found["accuracy"] > metrics["baseline"]["accuracy"]["value"] + 0.25, metrics["seeds"]
    assert metrics["accuracy"]["low"] < metrics["accuracy"]["value"] <= metrics["accuracy"]["high"]
    assert metrics["accuracy"]["value"] == metrics["seeds"][0]["accuracy"]
    assert metrics["over_seeds"]["accuracy"]["n"] == 3
    said = read_json(tmp_path / "run" / classify.PREDICTIONS_FILE)
    right = [sum(map(str.__eq__, said["truth"], answers)) / 90 for answers in said["predicted"]]
    assert right == [found["accuracy"] for found in metrics["seeds"]]
    assert sum(map(sum, metrics["confusion"]["counts"])) == 90
    wrong = 90 - round(90 * metrics["accuracy"]["value"])
    assert len(metrics["mistakes"]) == min(wrong, 6)
    assert all(one["truth"] != one["predicted"] for one in metrics["mistakes"])
    assert StageResult.load(tmp_path / "run").metrics == json.loads(json.dumps(metrics))


def test_labels_that_mean_nothing_are_not_learnt(policy: Path, tmp_path: Path) -> None:
    """Negative control of the learning test: the same texts, the held-out labels moved on by one class."""
    config = settings(tmp_path)
    lines = rows("classification", 90, shift=160)
    write(
        tmp_path / "test.jsonl", [{**a, "label": b["label"]} for a, b in zip(lines, lines[1:] + lines[:1], strict=True)]
    )
    metrics = classify.run(config, context(policy, tmp_path / "run")).metrics
    assert metrics["accuracy"]["value"] < metrics["baseline"]["accuracy"]["value"] + 0.1


def test_a_tokenizer_alone_gives_a_classifier_from_random_weights(lab: Any, tmp_path: Path) -> None:
    lab.tokenizer.save(tmp_path / "tokenizer")
    shape = ShapeConfig(width=32, layers=1, heads=2, key_value_heads=1, head_width=16, feed_forward_width=48)
    config = settings(tmp_path, shape=shape, context=40, auxiliary_weight=0.0)
    result = classify.run(
        config, StageContext(tmp_path / "run", {"tokenizer": tmp_path / "tokenizer"}, seed=0, threads=1)
    )
    assert result.metrics["from_scratch"]
    assert result.metrics["length"] == 40
    assert "language_loss" not in result.metrics
    assert result.metrics["accuracy"]["value"] > 0.6


def test_without_pre_training_only_the_shape_of_the_policy_is_used(policy: Path, tmp_path: Path) -> None:
    one = settings(
        tmp_path, epochs=1, from_scratch=True, auxiliary_weight=0.0, trainer=TrainerConfig(checkpoint_seconds=1e9)
    )
    start = classify._Start(one, context(policy, tmp_path / "run"))
    with_weights = classify._Start(dataclasses.replace(one, from_scratch=False), context(policy, tmp_path / "run"))
    assert start.random and not with_weights.random
    assert start.shape == with_weights.shape
    theirs = load_bundle(policy).policy.embedding.weight
    assert torch.equal(with_weights.decoder(0).embedding.weight, theirs)
    assert not torch.equal(start.decoder(0).embedding.weight, theirs)
    assert not torch.equal(start.decoder(0).embedding.weight, start.decoder(1).embedding.weight)


# -- what it keeps ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    classify.run(settings(folder, "similarity", epochs=2), context(policy, folder / "run"))
    return folder / "run"


def test_a_classifier_that_is_loaded_says_what_it_said(trained: Path, policy: Path) -> None:
    assert is_task_bundle(trained) and not is_task_bundle(policy)
    model = ClassifierModel.load(trained)
    said = read_json(trained / classify.PREDICTIONS_FILE)
    test = rows("similarity", 90, shift=160)
    inputs = [model.encode(Question((row["text"], row["text_b"]))) for row in test]
    assert [answer.label for answer in model.predict(inputs)] == said["predicted"][0]
    (answer,) = model.predict(inputs[:1])
    assert sum(answer.probabilities.values()) == pytest.approx(1.0)
    assert list(answer.probabilities) == ["no", "yes"]
    assert (
        load_bundle(trained).policy.config == load_bundle(policy).policy.config
    )  # the trunk is a policy like any other


def test_the_pooling_is_kept_with_the_classifier(policy: Path, tmp_path: Path) -> None:
    classify.run(settings(tmp_path, epochs=2, pooling="mean"), context(policy, tmp_path / "run"))
    said = read_json(tmp_path / "run" / classify.PREDICTIONS_FILE)["predicted"][0]
    texts = [Question((row["text"],)) for row in rows("classification", 90, shift=160)]

    def answers() -> list[str]:
        model = ClassifierModel.load(tmp_path / "run")
        return [answer.label for answer in model.predict([model.encode(text) for text in texts])]

    assert answers() == said
    file = tmp_path / "run" / "task.json"
    task = json.loads(file.read_text())
    assert task.pop("pooling") == "mean"
    file.write_text(json.dumps(task))  # as the first classifiers were written
    assert load_task_bundle(tmp_path / "run").settings.pooling == "extract"
    assert answers() != said  # negative control: the same weights read at the extract token
    file.write_text(json.dumps({**task, "pooling": "best"}))
    with pytest.raises(BundleError, match="not a description of a task"):
        load_task_bundle(tmp_path / "run")


def test_the_report_shows_what_the_stage_wrote(trained: Path, tmp_path: Path) -> None:
    entry = {"name": "classify", "stage": "classify", "directory": str(trained)}
    (tmp_path / "run.json").write_text(json.dumps({"recipe": {"name": "mine"}, "stages": [entry]}))
    html = write_report(tmp_path).read_text(encoding="utf-8")
    metrics = StageResult.load(trained).metrics
    low, high, majority = (
        metrics["accuracy"]["low"], metrics["accuracy"]["high"], metrics["baseline"]["accuracy"]["value"]
    )  # fmt: skip
    assert f"[{low:.3f}, {high:.3f}]" in html and f"{majority:.3f}" in html
    assert "Pairs of texts in either order" in html and "<bdi>yes</bdi>" in html
    assert 'class="partial"' not in html


def test_an_interrupted_run_ends_with_the_same_bits(policy: Path, tmp_path: Path, killed: Any) -> None:
    config = settings(
        tmp_path,
        epochs=1,
        micro_batch=8,
        seeds=2,
        trainer=TrainerConfig(checkpoint_seconds=1e9, checkpoint_steps=5, log_every=1),
    )
    whole, cut = context(policy, tmp_path / "whole"), context(policy, tmp_path / "cut")
    classify.run(config, whole)
    with killed(JointLoss, "__call__", 2 * 18):  # in the eighth step of the second seed
        classify.run(config, cut)
    assert not is_task_bundle(cut.directory)
    resumed = classify.run(config, cut)
    for name in ("model.safetensors", "task_head.safetensors", classify.PREDICTIONS_FILE):
        assert sha256_file(cut.directory / name) == sha256_file(whole.directory / name)
    assert resumed.metrics["seeds"] == StageResult.load(whole.directory).metrics["seeds"]


# -- what it refuses --------------------------------------------------------------------------------------------------


def refused(
    policy: Path, folder: Path, config: ClassifyConfig, message: str, kind: type[Exception] = DataError
) -> None:
    with pytest.raises(kind, match=message):
        classify.run(config, context(policy, folder / "refused"))


def test_data_that_cannot_be_learnt_from_is_named(policy: Path, tmp_path: Path) -> None:
    config = settings(tmp_path)
    good = rows("classification", 30)

    def labelled(train: list[dict[str, Any]], test: list[dict[str, Any]], **changes: Any) -> ClassifyConfig:
        write(tmp_path / "train.jsonl", train)
        write(tmp_path / "test.jsonl", test)
        return dataclasses.replace(config, **changes)

    one_class = [{**row, "label": "cat"} for row in good]
    refused(policy, tmp_path, labelled(one_class, one_class), "all training examples are of one class, 'cat'")
    unknown = labelled(good, [*good[:3], {"text": "a fish", "label": "fish"}])
    refused(policy, tmp_path, unknown, "the held-out part has the class 'fish', which no training example has")
    refused(policy, tmp_path, labelled([{"text": "a", "kind": "b"}], good), "no column for labelled")
    refused(policy, tmp_path, labelled(good, good, task="similarity"), "similarity takes two texts, found 1 in")
    refused(
        policy, tmp_path, labelled(good, good, task="multiple_choice"), "needs choices, and .* labelled", ConfigError
    )
    refused(policy, tmp_path, labelled(good, good, length=65), "longer than the model's context of 64", ConfigError)
    refused(policy, tmp_path, labelled(good, good, positive_class="fish"), "there is no class 'fish'", ConfigError)
    with pytest.raises(ConfigError, match="there is nothing to start from"):
        classify.run(config, StageContext(tmp_path / "none", {}))


def test_a_bundle_without_a_classifier_says_how_to_get_one(policy: Path, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"holds no classifier \(there is no task.json\).*duihua classify --input"):
        load_task_bundle(policy)
    with pytest.raises(BundleError, match="no such directory"):
        load_task_bundle(tmp_path / "none")
    for name in ("config.json", "model.safetensors", "tokenizer.json", "task.json", "task_head.safetensors"):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    task = json.loads((tmp_path / "task.json").read_text())
    (tmp_path / "task.json").write_text(json.dumps({**task, "classes": ["a", "b", "c"]}))
    with pytest.raises(BundleError, match=r"score.weight \(expected \(3, 32\), found \(2, 32\)\)"):
        load_task_bundle(tmp_path)
    for wrong, message in (({"format": 2}, "format 2"), ({"task": "poetry"}, "not a description of a task")):
        (tmp_path / "task.json").write_text(json.dumps({**task, **wrong}))
        with pytest.raises(BundleError, match=message):
            load_task_bundle(tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0}, {"batch": 0}, {"seeds": 0}, {"auxiliary_weight": -0.1}, {"classifier_dropout": 1.0},
        {"warmup_share": 1.0}, {"length": -1}, {"source": SourceConfig(name="mrpc", weight=2.0)},
    ],
    ids=lambda value: str(next(iter(value))),
)  # fmt: skip
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ClassifyConfig(**wrong)
