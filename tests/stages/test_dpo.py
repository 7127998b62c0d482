"""DPO: its losses are TRL's to the last digits, a tree reads as its two sides alone would, and the stage keeps its promises."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from duihua.config import build
from duihua.errors import BundleError, ConfigError, DataError
from duihua.models.bundle import ModelCard, load_bundle, save_bundle
from duihua.models.heads import ScoredDecoder
from duihua.nn.lora_config import LoraConfig
from duihua.stages import dpo
from duihua.stages.configs.dpo import DPOConfig
from duihua.stages.context import StageContext
from duihua.stages.dpo_math import preference_loss
from duihua.stages.preference_rows import (
    Tree,
    TreeBatches,
    all_log_probabilities,
    micro_batches,
    rows_of,
    side_log_probabilities,
    tree_batch,
    tree_of,
    visible,
)
from duihua.stages.reward_pairs import Pair
from duihua.text.tokenizer import Tokenizer
from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig

TRL = json.loads((Path(__file__).parents[1] / "fixtures" / "trl_losses.json").read_text(encoding="utf-8"))["dpo"]
SETTINGS: dict[str, dict[str, Any]] = {
    "sigmoid": {"loss": "sigmoid"},
    "sigmoid, smoothed": {"loss": "sigmoid", "label_smoothing": 0.15},
    "ipo, averaged over tokens": {"loss": "ipo"},
}


def of_trl(name: str, sign: float = 1.0, **changes: Any) -> tuple[float, Tensor, dict[str, Any]]:
    """Our loss and its gradient on the tensors that TRL's code was given, and TRL's answer."""
    known = TRL[name]
    mask, reference = torch.tensor(TRL["mask"]).double(), torch.tensor(TRL["reference"]).double()
    logprobs = torch.tensor(TRL["logprobs"]).double().requires_grad_()
    policy = (logprobs * mask).sum(dim=1)
    if name.startswith("ipo"):
        policy, reference = policy / mask.sum(dim=1), reference / mask.sum(dim=1)
    (chosen, rejected), (old_chosen, old_rejected) = policy.chunk(2), reference.chunk(2)
    settings = {"beta": known["beta"], **SETTINGS[name], **changes}
    loss = preference_loss(chosen, rejected, sign * old_chosen, sign * old_rejected, **settings).mean()
    loss.backward()
    assert logprobs.grad is not None
    return float(loss.detach()), logprobs.grad, known


@pytest.mark.parametrize("name", list(SETTINGS))
def test_losses_and_gradients_are_those_of_trl(name: str) -> None:
    value, gradient, known = of_trl(name)
    assert value == pytest.approx(known["value"], rel=1e-5)
    torch.testing.assert_close(gradient, torch.tensor(known["gradient"]).double(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", list(SETTINGS))
def test_a_wrong_beta_or_sign_is_not_trls(name: str) -> None:
    for wrong in ({"beta": 0.05}, {"sign": -1.0}):
        value, gradient, known = of_trl(name, **wrong)
        assert value != pytest.approx(known["value"], rel=1e-3)
        assert not torch.allclose(gradient, torch.tensor(known["gradient"]).double(), rtol=1e-3)


def test_losses_by_hand() -> None:
    def one(**settings: Any) -> float:
        numbers = (torch.tensor([value]) for value in (-1.0, -2.0, -1.5, -1.0))  # h = 0.5 + 1 = 1.5
        return float(preference_loss(*numbers, **settings))

    assert one(beta=0.1) == pytest.approx(0.62096, abs=1e-5)  # ln(1 + e^-0.15)
    assert one(beta=0.1, label_smoothing=0.2) == pytest.approx(0.8 * 0.62096 + 0.2 * 0.77096, abs=1e-5)
    assert one(beta=0.5, loss="ipo") == pytest.approx(0.25)  # (1.5 - 1)^2


def test_at_the_start_the_loss_is_ln_2_and_the_gradient_pulls_the_sides_apart() -> None:
    chosen, rejected = torch.tensor([-3.0], requires_grad=True), torch.tensor([-5.0], requires_grad=True)
    loss = preference_loss(chosen, rejected, chosen.detach(), rejected.detach(), beta=0.2)
    assert float(loss.detach()) == pytest.approx(0.693147, abs=1e-6)
    loss.sum().backward()
    assert chosen.grad is not None and rejected.grad is not None
    assert (float(chosen.grad), float(rejected.grad)) == pytest.approx((-0.1, 0.1))


# -- trees ------------------------------------------------------------------------------------------------------------


def some_trees(count: int = 7) -> list[Tree]:
    generator = torch.Generator().manual_seed(3)

    def ids(length: int) -> list[int]:
        return torch.randint(0, 256, (length,), generator=generator).tolist()

    return [Tree(ids(3 + i), ids(1 + i % 4), ids(1 + (2 * i) % 5)) for i in range(count)]


def alone(decoder: Any, tree: Tree) -> tuple[float, float]:
    """log pi of both sides, each read in a row of its own."""
    found = []
    for reply in (tree.chosen, tree.rejected):
        row = torch.tensor([tree.prompt + reply])
        logprobs = decoder(row)[:, :-1].log_softmax(-1).gather(-1, row[:, 1:, None])[..., 0]
        found.append(float(logprobs[0, len(tree.prompt) - 1 :].sum().detach()))
    return found[0], found[1]


def test_a_tree_in_a_packed_row_reads_as_its_sides_alone(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, trees = lab.decoder(), some_trees()
    expected = torch.tensor([alone(decoder, tree) for tree in trees])
    for row_tokens in (1, 24, 200):
        found = all_log_probabilities(decoder, trees, row_tokens, 64, lab.tokenizer.pad_id)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    monkeypatch.setattr(
        "duihua.stages.preference_rows.visible", lambda trees, branches: trees[:, :, None] == trees[:, None, :]
    )
    wrong = all_log_probabilities(decoder, trees, 200, 64, lab.tokenizer.pad_id)
    torch.testing.assert_close(wrong[:, 0], expected[:, 0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(wrong[:, 1], expected[:, 1], atol=1e-3), (
        "a rejected side that saw the chosen one is caught"
    )


def test_who_sees_whom() -> None:
    seen = visible(torch.tensor([[1, 1, 1, 1, 2, 0]]), torch.tensor([[0, 1, 1, 2, 0, 0]]))[0]
    assert seen.int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]


def test_the_prompt_stands_once_and_rows_are_filled() -> None:
    trees = some_trees()
    rows = rows_of(trees, 40)
    assert sorted(index for row in rows for index in row) == list(range(len(trees)))
    batch = tree_batch(trees, rows, pad_id=259)
    read = sum(len(tree.prompt) + len(tree.chosen) - 1 + len(tree.rejected) - 1 for tree in trees)
    assert int((batch["trees"] > 0).sum()) == read
    assert len(batch["targets"]) == sum(len(tree.chosen) + len(tree.rejected) for tree in trees)
    parts = micro_batches(trees, rows, 45)
    assert sorted(index for part in parts for row in part for index in row) == list(range(len(trees)))


def test_the_common_prompt_of_a_pair_is_taken_apart() -> None:
    assert tree_of(Pair([1, 2, 3, 4], [1, 2, 5], "human", 2, 1, "s", "en")) == Tree([1, 2], [3, 4], [5])


def batches(trees: list[Tree], micro_batch_tokens: int = 64) -> TreeBatches:
    reference = torch.arange(2.0 * len(trees)).view(-1, 2)
    return TreeBatches(
        trees, reference, batch=4, row_tokens=24, micro_batch_tokens=micro_batch_tokens, pad_id=259, seed=5
    )


def gradient(lab: Any, parts: list[dict[str, Tensor]]) -> Tensor:
    decoder, loss = lab.decoder(), dpo.Loss(DPOConfig())
    found = [loss(decoder, part) for part in parts]
    (sum(part.sum for part in found) / sum(part.weight for part in found)).backward()
    return torch.cat([w.grad.flatten() for w in decoder.parameters() if w.grad is not None])


def test_the_gradient_does_not_depend_on_micro_batches_ranks_or_halves(lab: Any) -> None:
    trees = some_trees(8)
    whole = gradient(lab, batches(trees, 1000).next())
    few = batches(trees, 24).next()
    assert len(few) > 1
    torch.testing.assert_close(gradient(lab, few), whole, rtol=1e-3, atol=1e-6)
    ranked = [part for rank in range(2) for part in batches(trees, 1000).share(rank, 2) if part]
    torch.testing.assert_close(gradient(lab, ranked), whole, rtol=1e-3, atol=1e-6)
    source = batches(trees, 1000)
    halved = [half for part in source.next() for half in source.halves(part)]
    torch.testing.assert_close(gradient(lab, halved), whole, rtol=1e-3, atol=1e-6)
    assert not torch.allclose(gradient(lab, few[:1]), whole, rtol=1e-3, atol=1e-6)


def test_one_pair_cannot_be_halved() -> None:
    source = batches(some_trees(1))
    (only,) = source.next()
    assert len(source.halves(only)) == 1


def test_an_epoch_shows_every_pair_once_with_its_reference() -> None:
    source = batches(some_trees(7))
    seen = [part for _ in range(source.steps_per_epoch) for part in source.next()]
    pairs = [int(pair) for part in seen for pair in part["pairs"]]
    assert sorted(pairs) == list(range(7)) and pairs != list(range(7))
    for part in seen:
        chosen, rejected = part["reference"].chunk(2)
        assert torch.equal(chosen, 2.0 * part["pairs"]) and torch.equal(rejected, 2.0 * part["pairs"] + 1)
    again = batches(some_trees(7))
    again.load_state_dict({"step": 1})
    torch.testing.assert_close(again.next()[0]["pairs"], seen_at_step(1))


def seen_at_step(step: int) -> Tensor:
    source = batches(some_trees(7))
    for _ in range(step):
        source.next()
    return source.next()[0]["pairs"]


@pytest.mark.parametrize("average", [False, True])
def test_the_weighed_likelihood_is_torchs_cross_entropy_of_the_chosen_reply(lab: Any, average: bool) -> None:
    """Per token, read from a plain row of prompt and reply; not that of the rejected one, nor a sum over tokens."""
    decoder, trees = lab.decoder(), some_trees()
    batch = tree_batch(trees, [list(range(len(trees)))], 0)
    batch["reference"] = torch.zeros(2 * len(trees))
    config = DPOConfig(average_tokens=average)

    def total(**settings: Any) -> float:
        return float(dpo.Loss(dataclasses.replace(config, **settings))(decoder, batch).sum.detach())

    def entropy(tree: Tree, reply: list[int], reduction: str = "mean") -> float:
        ids = torch.tensor([[*tree.prompt, *reply]])
        logits = decoder(ids[:, :-1])[0, len(tree.prompt) - 1 :]
        return float(torch.nn.functional.cross_entropy(logits, torch.tensor(reply), reduction=reduction).detach())

    added = total(nll_weight=0.5) - total()
    assert added == pytest.approx(0.5 * sum(entropy(tree, tree.chosen) for tree in trees), abs=1e-4)
    assert added != pytest.approx(0.5 * sum(entropy(tree, tree.rejected) for tree in trees), abs=1e-2)
    assert added != pytest.approx(0.5 * sum(entropy(tree, tree.chosen, "sum") for tree in trees), abs=1e-2)


# -- the stage --------------------------------------------------------------------------------------------------------


def stage(lab: Any, folder: Path, **changes: Any) -> tuple[DPOConfig, StageContext]:
    """A DPO stage of a second or two: the better reply names the word that was asked for."""
    config = DPOConfig(
        preferences=(lab.preferences(folder, 120),), conversations=(lab.conversations(folder, 80),), sampled_pairs=0,
        length=64, reply_tokens=8, prompt_tokens=48, heldout_prompts=4, batch_pairs=8, row_tokens=64,
        heldout_sampled_pairs=0, samples=2, beta=0.3,
        optimizer=OptimizerConfig(kind="adamw", learning_rate=3e-3, beta1=0.9, beta2=0.95, epsilon=1e-8),
        schedule=ScheduleConfig(kind="linear", warmup_steps=2),
        trainer=TrainerConfig(log_every=1, checkpoint_seconds=1e9),
    )  # fmt: skip
    context = StageContext(
        folder / "dpo", {"policy": lab.policy_bundle(folder / "sft")}, data_directory=folder, seed=4, threads=1
    )
    return dataclasses.replace(config, **changes), context


def test_the_stage_learns_the_rule_and_gives_the_promised_figures(lab: Any, tmp_path: Path) -> None:
    config, context = stage(lab, tmp_path)
    result = dpo.run(config, context)
    found = json.loads((tmp_path / "dpo" / "result.json").read_text(encoding="utf-8"))["metrics"]
    assert found["accuracy"]["value"] >= 0.9, "held-out pairs of a rule"
    assert found["margin"] > 0 and found["log_ratio"]["chosen"] > found["log_ratio"]["rejected"]
    assert {"kl_nats", "length", "eos_rate", "repetition_rate", "samples", "pairs", "left_out", "kinds"} <= set(found)
    assert not any("reward" in name for name in found), "nobody judged"
    assert found["cut"]["train"]["total"] + found["cut"]["heldout"]["total"] == 1
    lines = [json.loads(line) for line in (tmp_path / "dpo" / "metrics.jsonl").read_text().splitlines()]
    assert {"accuracy", "margin", "reward_chosen", "reward_rejected", "logprob_chosen"} <= set(lines[0])
    assert lines[0]["loss"] == pytest.approx(0.6931, abs=1e-3), "policy and reference are the same at step 0"
    assert lines[0]["margin"] == pytest.approx(0.0, abs=1e-3)
    assert result.bundle is not None and load_bundle(result.bundle).kind == "policy"
    reference = load_file(tmp_path / "dpo" / "reference.safetensors")["log_probabilities"]
    assert reference.shape == (sum(found["pairs"]["train"].values()) + sum(found["pairs"]["heldout"].values()), 2)


def test_swapped_pairs_teach_the_opposite(lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control of the accuracy: trained on pairs the wrong way round it falls far below a half."""
    config, context = stage(lab, tmp_path, heldout_prompts=0)
    monkeypatch.setattr(dpo.Loss, "__call__", flipped(dpo.Loss.__call__))
    assert dpo.run(config, context).metrics["accuracy"]["value"] < 0.2


def flipped(right: Callable[..., Any]) -> Callable[..., Any]:
    def loss(self: Any, network: Any, batch: dict[str, Tensor]) -> Any:
        pairs = len(batch["pairs"])
        sides = (batch["sides"] + pairs) % (2 * pairs)
        reference, lengths = batch["reference"].roll(pairs), batch["lengths"].roll(pairs)
        return right(self, network, {**batch, "sides": sides, "reference": reference, "lengths": lengths})

    return loss


def test_a_killed_stage_ends_with_the_same_bits(lab: Any, tmp_path: Path, killed: Any) -> None:
    config, context = stage(lab, tmp_path / "whole", heldout_prompts=0)
    config = dataclasses.replace(config, trainer=dataclasses.replace(config.trainer, checkpoint_steps=3))
    dpo.run(config, context)
    other = dataclasses.replace(context, directory=tmp_path / "killed" / "dpo")
    with killed(dpo, "side_log_probabilities", 6):
        dpo.run(config, other)
    assert not (other.directory / "model.safetensors").exists()
    with (
        pytest.MonkeyPatch.context() as patched
    ):  # the reference is read, not computed once more, and measured with after
        patched.setattr(dpo, "kept_reference", once_kept(dpo.kept_reference))
        dpo.run(config, other)
    whole = (context.directory / "model.safetensors").read_bytes()
    assert (other.directory / "model.safetensors").read_bytes() == whole


def once_kept(right: Callable[..., Any]) -> Callable[..., Any]:
    def kept(*arguments: Any) -> Any:
        found = right(*arguments)
        assert found is not None, "what the first part of the run stored is used"
        return found

    return kept


def test_a_foreign_or_broken_reference_file_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "reference.safetensors"
    assert dpo.kept_reference(path, "key", 2) is None
    path.write_bytes(dpo.save({"log_probabilities": torch.ones(2, 2)}, metadata={"key": "key"}))
    assert dpo.kept_reference(path, "key", 2) is not None
    assert dpo.kept_reference(path, "another", 2) is None
    assert dpo.kept_reference(path, "key", 3) is None
    path.write_bytes(b"broken")
    assert dpo.kept_reference(path, "key", 2) is None


def test_lora_trains_adapters_alone_and_a_judge_adds_the_rewards(lab: Any, tmp_path: Path) -> None:
    config, context = stage(lab, tmp_path, lora=LoraConfig(rank=4))
    save_bundle(
        tmp_path / "reward", ScoredDecoder(lab.decoder(3)).initialise_score(3), lab.tokenizer, ModelCard("r", "reward")
    )
    inputs = {**context.inputs, "reward": tmp_path / "reward"}
    found = dpo.run(config, dataclasses.replace(context, inputs=inputs)).metrics
    assert (tmp_path / "dpo" / "adapter").is_dir() and found["trained_parameters"] > 0
    assert {"reward_before", "reward_after", "reward_gain"} <= set(found)
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("sft", "dpo"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and not any("embed" in name for name in changed)


def test_faults_are_named(lab: Any, tmp_path: Path) -> None:
    config, context = stage(lab, tmp_path)
    with pytest.raises(ConfigError, match="needs preferences"):
        dpo.run(dataclasses.replace(config, preferences=config.conversations), context)
    with pytest.raises(ConfigError, match="context"):
        dpo.run(dataclasses.replace(config, prompt_tokens=60), context)
    with pytest.raises(DataError, match="no pair"):
        dpo.run(dataclasses.replace(config, length=5, long_pairs="leave_out"), context)
    other = Tokenizer.train(["something else entirely, and more of it"] * 9, 280)
    save_bundle(tmp_path / "foreign", ScoredDecoder(lab.decoder(3)), other, ModelCard("x", "reward"))
    with pytest.raises(BundleError, match="tokenizer"):
        dpo.run(config, dataclasses.replace(context, inputs={**context.inputs, "reward": tmp_path / "foreign"}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": 0.0}, "above 0"),
        ({"label_smoothing": 0.5}, "half"),
        ({"label_smoothing": 0.1, "loss": "ipo"}, "no label smoothing"),
        ({"epochs": 0}, "at least 1"),
        ({"lora": {"dropout": 0.1}}, "dropout"),
        ({"preferences": [], "conversations": []}, "no source"),
        ({"preferences": [{"name": "dpo-en", "weight": 0.5}]}, r"preferences\[0\].weight"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(DPOConfig, settings)


def test_side_sums_are_in_the_order_that_the_batch_says(lab: Any) -> None:
    decoder, trees = lab.decoder(), some_trees(3)
    batch = tree_batch(trees, [[2, 0], [1]], lab.tokenizer.pad_id)
    sums = side_log_probabilities(decoder, batch).detach()
    expected = torch.tensor([alone(decoder, trees[index]) for index in (2, 0, 1)]).T.flatten()
    torch.testing.assert_close(sums, expected, rtol=1e-4, atol=1e-4)
    assert batch["pairs"].tolist() == [2, 0, 1] and batch["row_pairs"].tolist() == [2, 1]
