"""LoRA in the stages: what is trained, what is written, and that an interruption changes nothing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from duihua.config import build
from duihua.errors import ConfigError, TrainingError
from duihua.files import sha256_file
from duihua.models.adapters import load_adapter
from duihua.models.bundle import ModelCard, Normalisation, load_bundle, save_bundle
from duihua.models.decoder import Decoder
from duihua.models.heads import ScoredDecoder
from duihua.nn.lora import add_lora, frozen_fingerprint, lora_parameters, merge_lora
from duihua.nn.lora_config import LoraConfig
from duihua.stages import policy_training, ppo, reward, sft
from duihua.stages.comparison import compare
from duihua.stages.configs.ppo import PPOConfig
from duihua.stages.configs.sft import SFTConfig
from duihua.stages.context import StageContext
from duihua.training.checkpoints import load_newest
from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig
from duihua.training.optimizers import Optimizer

IDS = torch.arange(40).view(2, 20)


def fine_tuning(lab: Any, folder: Path, name: str = "sft", **changes: Any) -> tuple[SFTConfig, StageContext]:
    """A short fine-tuning with the stage's own optimizer, on a policy bundle that stands in `folder`."""
    base = folder / "base"
    if not base.exists():
        lab.policy_bundle(base)
    config = SFTConfig(
        sources=(lab.conversations(folder, 120),),
        batch_tokens=256,
        micro_batch_tokens=128,
        steps=12,
        heldout_conversations=10,
        samples=1,
        reply_tokens=6,
        lora=LoraConfig(rank=4, dropout=0.1),
        schedule=ScheduleConfig(kind="constant", warmup_steps=2),
        trainer=TrainerConfig(log_every=4, checkpoint_steps=5, checkpoint_seconds=1e9),
    )
    return dataclasses.replace(config, **changes), StageContext(folder / name, {"policy": base}, folder, seed=3)


def logits(network: Decoder) -> Tensor:
    with torch.no_grad():
        found: Tensor = network.eval()(IDS)
    return found


def test_fine_tuning_lowers_the_loss_and_writes_both_forms(lab: Any, tmp_path: Path) -> None:
    config, context = fine_tuning(lab, tmp_path, steps=60, optimizer=OptimizerConfig(adapter_learning_rate=2e-2))
    metrics = sft.run(config, context).metrics
    assert metrics["heldout_loss"] < metrics["before"]["heldout_loss"] - 0.7
    assert metrics["trained_parameters"] < metrics["parameters"] / 3
    merged, base = load_bundle(context.directory).policy, load_bundle(tmp_path / "base").policy
    changed = {
        name
        for name, weight in merged.named_parameters()
        if not torch.equal(weight, dict(base.named_parameters())[name])
    }
    assert changed and all("attention." in name or "feed_forward." in name for name in changed)
    adapted = load_bundle(tmp_path / "base").policy
    adapter = load_adapter(adapted, context.directory / "adapter")
    assert adapter.stage == "sft"
    # Two products instead of one: rounding, 3e-5 at most where it was seen.
    assert torch.allclose(logits(adapted), logits(merged), atol=1e-4)
    assert not torch.allclose(logits(base), logits(merged), atol=1e-2)
    merge_lora(adapted)
    for name, weight in merged.named_parameters():
        assert torch.equal(weight, dict(adapted.named_parameters())[name]), name


def test_an_interrupted_run_ends_with_the_same_bits(lab: Any, tmp_path: Path, killed: Any) -> None:
    config, whole = fine_tuning(lab, tmp_path, "whole")
    _, cut = fine_tuning(lab, tmp_path, "cut")
    sft.run(config, whole)
    with killed(sft, "sft_loss", 2 * 8):  # in the eighth step, after the checkpoint of the fifth
        sft.run(config, cut)
    assert not (cut.directory / "adapter").exists()
    sft.run(config, cut)
    for file in ("model.safetensors", "adapter/adapter_model.safetensors"):
        assert sha256_file(cut.directory / file) == sha256_file(whole.directory / file)

    other = dataclasses.replace(whole, directory=tmp_path / "other", seed=4)
    sft.run(config, other)
    assert sha256_file(other.directory / "model.safetensors") != sha256_file(whole.directory / "model.safetensors")


def test_a_checkpoint_holds_the_adapters_and_their_moments_alone(lab: Any, tmp_path: Path) -> None:
    config, context = fine_tuning(lab, tmp_path)
    sft.run(config, context)
    found = load_newest(context.directory / "checkpoints")
    assert found is not None
    _, weights, state, _ = found
    assert len(weights) == 2 * 2 * 7
    assert all(name.endswith(("lora_a", "lora_b")) for name in weights)
    assert all(".lora_" in name for name in state["optimizer"])
    assert any(name.startswith("adam.") for name in state["optimizer"]), "also where the stage's optimizer is Muon"


def test_a_checkpoint_beside_other_frozen_weights_is_refused(lab: Any, tmp_path: Path) -> None:
    config, context = fine_tuning(lab, tmp_path)
    sft.run(config, context)
    lab.policy_bundle(tmp_path / "another", seed=1)
    with pytest.raises(TrainingError, match="other frozen weights"):
        sft.run(config, dataclasses.replace(context, inputs={"policy": tmp_path / "another"}))


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_adapters_move_by_adamw_at_their_own_rate(lab: Any, kind: Any) -> None:
    network = lab.decoder()
    add_lora(network, LoraConfig(rank=2), seed=0)
    optimizer = Optimizer(network, OptimizerConfig(kind=kind, adapter_learning_rate=0.25, learning_rate=9.0))
    assert optimizer.parameters.keys() == lora_parameters(network).keys()
    assert optimizer.rate(1.0) == 0.25
    before = {name: weight.detach().clone() for name, weight in lora_parameters(network).items()}
    for weight in lora_parameters(network).values():
        weight.grad = torch.ones_like(weight)
    optimizer.step(1.0)
    for name, weight in lora_parameters(network).items():  # Adam's first step is the rate, whatever the gradient
        assert torch.allclose(before[name] - weight, torch.full_like(weight, 0.25), atol=1e-5), name


# -- reward model and PPO ---------------------------------------------------------------------------------------------


def test_a_reward_model_learns_with_adapters_and_a_trained_score(lab: Any, tmp_path: Path) -> None:
    config = lab.reward_config(tmp_path, lora=LoraConfig(rank=4))
    policy = lab.policy_bundle(tmp_path / "sft")
    context = StageContext(tmp_path / "reward", {"policy": policy}, data_directory=tmp_path, seed=2, threads=1)
    metrics = reward.run(config, context).metrics
    assert metrics["kinds"]["human"]["value"] > 0.9
    found = load_newest(context.directory / "checkpoints")
    assert found is not None
    assert {name for name in found[1] if "lora" not in name} == {"score.weight"}
    trained, base = load_bundle(context.directory).reward, load_bundle(policy).policy
    assert torch.equal(trained.decoder.embedding.weight, base.embedding.weight)
    query = "blocks.0.attention.query.weight"
    assert not torch.equal(trained.decoder.state_dict()[query], base.state_dict()[query])


def alignment(lab: Any, folder: Path, name: str = "ppo", **changes: Any) -> tuple[PPOConfig, StageContext]:
    if not (folder / "sft").exists():
        lab.policy_bundle(folder / "sft")
        scored = ScoredDecoder(lab.decoder(seed=0)).initialise_score(3)
        card = ModelCard(title="tiny reward", stage="reward")
        save_bundle(folder / "reward", scored, lab.tokenizer, card, normalisation=Normalisation(0.1, 0.9))
    config = lab.config(
        sources=(lab.conversations(folder, 600),), iterations=2, epochs=2, minibatches=2, prompt_tokens=48,
        heldout_prompts=16, lora=LoraConfig(rank=4), **changes,
    )  # fmt: skip
    inputs = {"policy": folder / "sft", "reward": folder / "reward"}
    return config, StageContext(folder / name, inputs, data_directory=folder / "data", seed=4, threads=1)


@pytest.mark.parametrize("critic", ["shared", "reward"])
def test_ppo_shares_the_frozen_weights_and_leaves_reference_and_reward_alone(
    lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, critic: str
) -> None:
    seen: dict[str, Any] = {}
    right_rollout, right_compare = ppo.Rollout, policy_training.compare

    def rollout(network: Any, reference: Decoder, *rest: Any, **named: Any) -> Any:
        seen["network"], seen["reference"], seen["before"] = network, reference, logits(reference)
        return right_rollout(network, reference, *rest, **named)

    def compare(reference: Decoder, policy: Decoder, *rest: Any, **named: Any) -> Any:
        seen["after"], seen["policy"] = logits(reference), logits(policy)
        return right_compare(reference, policy, *rest, **named)

    monkeypatch.setattr(ppo, "Rollout", rollout)
    monkeypatch.setattr(policy_training, "compare", compare)
    config, context = alignment(lab, tmp_path, critic=critic)
    metrics = ppo.run(config, context).metrics
    network = seen["network"]
    assert torch.equal(seen["before"], seen["after"]), "the reference stands still"
    assert torch.equal(seen["before"], logits(load_bundle(tmp_path / "sft").policy))
    assert not torch.allclose(seen["policy"], seen["after"], atol=1e-4)
    assert network.policy.embedding.weight is seen["reference"].embedding.weight
    trained = {name for name, weight in network.named_parameters() if weight.requires_grad and "lora" not in name}
    assert trained == ({"value.weight"} if critic == "shared" else {"critic.reward.score.weight"})
    assert metrics["kl_nats"] != 0.0
    rows_and_columns = 2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 48)  # query and output, key and value, feed-forward
    assert metrics["trained_parameters"] == 2 * 4 * rows_and_columns
    stored = load_file(context.directory / "model.safetensors")
    assert not any("lora" in name for name in stored)
    adapted = load_bundle(tmp_path / "sft").policy
    load_adapter(adapted, context.directory / "adapter")
    assert torch.allclose(logits(adapted), logits(load_bundle(context.directory).policy), atol=1e-5)


def test_the_first_rollout_has_no_divergence_and_a_critic_that_is_the_reward_model(lab: Any, tmp_path: Path) -> None:
    config, context = alignment(lab, tmp_path, critic="reward")
    ppo.run(config, context)
    line = json.loads((context.directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert line["kl"] == 0.0
    assert line["ratio"] == pytest.approx(1.0, abs=1e-6)
    full, other = alignment(lab, tmp_path, "full", critic="reward")
    ppo.run(dataclasses.replace(full, lora=None), other)
    same = json.loads((other.directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0])
    for figure in ("score", "value_loss", "explained_variance", "reward"):
        assert line[figure] == pytest.approx(same[figure], rel=1e-5), "the same networks before the first update"


def test_ppo_raises_a_gold_reward_through_adapters_alone(lab: Any, tmp_path: Path) -> None:
    optimizer = OptimizerConfig(kind="adamw", learning_rate=4e-3, adapter_learning_rate=2e-2, beta1=0.9, beta2=0.999)
    rollout = lab.rollout(lab.config(optimizer=optimizer))
    policy = rollout.network.policy
    with torch.no_grad():  # a head that nothing has trained is too small for the blocks to move it
        for network in (policy, rollout.reference):
            network.head.weight.mul_(8)
    add_lora(policy, LoraConfig(), seed=0)
    frozen = frozen_fingerprint(policy)
    lab.trainer(rollout, tmp_path).run()
    found = compare(rollout.reference, policy, lab.gold, lab.prompts(24) * 4, lab.tokenizer, rollout.config, seed=9)
    assert found.gain.value > 0.6
    assert found.gain.value > 3 * found.gain.standard_error
    assert frozen_fingerprint(policy) == frozen


def test_an_interrupted_ppo_ends_with_the_same_bits(lab: Any, tmp_path: Path, killed: Any) -> None:
    changes = {"critic": "reward", "trainer": TrainerConfig(log_every=1, checkpoint_steps=3, checkpoint_seconds=1e9)}
    config, whole = alignment(lab, tmp_path, "whole", **changes)
    _, cut = alignment(lab, tmp_path, "cut", **changes)
    ppo.run(config, whole)
    with killed(ppo.Loss, "__call__", 5):  # one micro-batch an update: in the fifth, after the checkpoint of the third
        ppo.run(config, cut)
    ppo.run(config, cut)
    for file in ("model.safetensors", "adapter/adapter_model.safetensors"):
        assert sha256_file(cut.directory / file) == sha256_file(whole.directory / file)


# -- settings ---------------------------------------------------------------------------------------------------------


def test_lora_is_off_and_can_be_written_in_a_recipe() -> None:
    assert build(SFTConfig, {}, "sft").lora is None
    assert build(SFTConfig, {"lora": {}}, "sft").lora == LoraConfig()
    found = build(PPOConfig, {"lora": {"rank": 2, "targets": ["attention.query"]}}, "ppo").lora
    assert found == LoraConfig(rank=2, targets=("attention.query",))
    with pytest.raises(ConfigError, match=r"sft\.lora\.rank: must be at least 1, found 0"):
        build(SFTConfig, {"lora": {"rank": 0}}, "sft")
    with pytest.raises(ConfigError, match=r"nearest known name is 'rank'"):
        build(SFTConfig, {"lora": {"rnak": 2}}, "sft")
    with pytest.raises(ConfigError, match=r"lora\.dropout: PPO compares two forwards"):
        build(PPOConfig, {"lora": {"dropout": 0.1}}, "ppo")
