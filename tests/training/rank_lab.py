"""Small trainings that give the same curve on any number of ranks, and wrong ones that do not.

`python rank_lab.py OUT PORT...` is one rank of two: it runs every case and writes what it found to OUT/rankN.json. The test
runs the same cases alone, in its own process, and compares.
"""

from __future__ import annotations

import json
import math
import os
import runpy
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from duihua.data.loaders import StreamedBatches
from duihua.data.packing import Example, PackedBatches
from duihua.data.shards import Shard, write_shard
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder
from duihua.models.heads import ScoredDecoder
from duihua.stages.actor_critic import ActorCritic, ReplyBatch, freeze, reply_log_probabilities
from duihua.stages.configs.ppo import PPOConfig
from duihua.stages.configs.reward import RewardConfig
from duihua.stages.encoded_pairs import Pair
from duihua.stages.pair_batches import PairBatches
from duihua.stages.ppo import Loss as PPOLoss
from duihua.stages.ppo_math import whiten
from duihua.stages.pretrain import language_model_loss
from duihua.stages.replies import Prompt, Reply, sampled_in_parts, scored_in_parts
from duihua.stages.reward import Loss as RewardLoss
from duihua.stages.rollout import Rollout
from duihua.stages.sft import sft_loss
from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig
from duihua.training.gradients import Accumulated, Gradients
from duihua.training.ranks import current, joined
from duihua.training.trainer import Trainer

VOCABULARY, LENGTH, STEPS = 61, 16, 50
QUIET = TrainerConfig(log_every=10, checkpoint_seconds=1e9)


class Letters:
    """A tokenizer of numbers: as much of one as shards and rollouts ask for."""

    vocabulary_size, end_of_text_id, pad_id = VOCABULARY, 0, 0

    def encode_flat(self, texts: list[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        rows = [[int(word) for word in text.split()] for text in texts]
        return np.array([id for row in rows for id in row]), np.cumsum(list(map(len, rows)))

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))


def random_ids(seed: int, count: int) -> list[int]:
    """Ids with a pattern that a model can learn: each follows from the one before, now and then a random one."""
    generator = np.random.Generator(np.random.PCG64(seed))
    ids = [int(generator.integers(1, VOCABULARY))]
    while len(ids) < count:
        draw = int(generator.integers(1, VOCABULARY))
        ids.append(draw if draw % 4 == 0 else ids[-1] * 7 % (VOCABULARY - 1) + 1)
    return ids


def decoder(seed: int = 0) -> Decoder:
    """A decoder of two layers."""
    shape = DecoderConfig(
        vocabulary_size=VOCABULARY, width=24, layers=2, heads=2, key_value_heads=1, head_width=12, feed_forward_width=36,
        context=64,
    )  # fmt: skip
    return Decoder(shape).initialise(seed)


def shard(folder: Path) -> Shard:
    """Forty documents of different lengths, written by one rank."""
    with current().in_turn():
        if not (folder / "shard" / "shard.json").exists():
            write_shard(
                folder / "shard", [" ".join(map(str, random_ids(n, 5 + 7 * n % 40))) for n in range(40)], Letters()
            )
    return Shard(folder / "shard")


def streamed(folder: Path, mask_documents: bool = False) -> StreamedBatches:
    """Micro-batches of three rows, which two ranks cannot share evenly."""
    return StreamedBatches([shard(folder)], [1.0], 3, LENGTH, 2, 5, 0, mask_documents)


def packed() -> PackedBatches:
    """Conversations of which very different shares are learnt, so that no two ranks have the same weight."""
    examples = []
    for number in range(40):
        ids = np.asarray(random_ids(number, 4 + number % 13), dtype=np.int32)
        examples.append(Example(ids, np.arange(len(ids)) >= len(ids) - 1 - number % 5))
    return PackedBatches([(examples, 1.0)], row_length=LENGTH, rows=5, micro_rows=3, pad_id=0, seed=5)


def pairs() -> PairBatches:
    """Pairs in which the better side has the larger ids; the last step of an epoch has one pair, so that a rank has none."""
    made = []
    for number in range(21):
        chosen, rejected = random_ids(number, 6 + number % 7), [i % 9 for i in random_ids(99 + number, 5 + number % 5)]
        made.append(Pair(chosen, rejected, "human", 3, 3, "lab", "en"))
    return PairBatches(made, 4, 2, 0, 5)


def ppo_config(**changes: Any) -> PPOConfig:
    base = PPOConfig(
        iterations=7, rollout_prompts=10, minibatches=2, micro_batch=3, epochs=4, reply_tokens=6, stop_kl=0.0,
        samples=0, missing_end="none", optimizer=OptimizerConfig(kind="adamw", learning_rate=2e-3), trainer=QUIET,
    )  # fmt: skip
    return replace(base, **changes)


def rollout(config: PPOConfig) -> Rollout:
    """Replies that are given beforehand: a rollout that is frozen but for the policy's view of it."""
    policy, reference = decoder(), decoder()
    freeze(reference)
    prompts = [
        Prompt(number, [{"role": "user", "content": ""}], random_ids(number, 3 + number % 4)) for number in range(8)
    ]

    def frozen(prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Reply]:
        replies = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            ids = random_ids(seed % 1000, 2 + seed % 5)
            with torch.no_grad():
                logprobs = reply_log_probabilities(policy, ReplyBatch.pack([prompt.ids], [ids], 0), config.temperature)
            replies.append(Reply(ids, logprobs[0].tolist(), True))
        return replies

    def score(prompts: Sequence[Prompt], replies: Sequence[Reply]) -> Tensor:
        return torch.tensor([sum(i % 4 == 0 for i in reply.ids) / len(reply.ids) for reply in replies])

    return Rollout(
        ActorCritic(policy),
        reference,
        scored_in_parts(score),
        sampled_in_parts(frozen),
        prompts,
        Letters(),
        config,
        seed=3,
    )  # type: ignore[arg-type]


def trainer(kind: str, folder: Path, gradients: type[Gradients] = Gradients, **changes: Any) -> Trainer:
    """One of the five trainings. gradients: the way in which they are added up."""
    torch.manual_seed(0)
    network: nn.Module
    batches: Any
    loss: Any
    optimizer = OptimizerConfig()
    if kind == "pretrain":
        network, loss, batches = decoder(), language_model_loss, streamed(folder)
    elif kind == "masked":  # pre-training in which documents do not see each other
        network, loss, batches = decoder(), language_model_loss, streamed(folder, mask_documents=True)
    elif kind == "sft":
        network, loss, batches = decoder(), sft_loss, packed()
    elif kind == "reward":
        network = ScoredDecoder(decoder()).initialise_score(0)
        network.decoder.head.weight = network.decoder.embedding.weight
        loss, batches = RewardLoss(RewardConfig()), pairs()
    else:
        config = ppo_config(stop_kl=changes.pop("stop_kl", 0.0))
        batches = rollout(config)
        network, loss, optimizer = batches.network, PPOLoss(config, batches), config.optimizer
    made = Trainer(
        network, loss, batches, steps=STEPS, optimizer=changes.pop("optimizer", optimizer),
        schedule=ScheduleConfig(warmup_steps=4), config=replace(QUIET, **changes), directory=folder / kind, label=kind,
    )  # fmt: skip
    made._gradients.__class__ = gradients
    return made


def curve(trained: Trainer, steps: int = STEPS) -> list[float]:
    return [trained.step()["loss"] for _ in range(steps)]


class MeanOfMeans(Gradients):
    """Wrong: every rank divides by its own weight, and the ranks are averaged."""

    def _add_up(self, own: Accumulated) -> Accumulated:
        for weight in self.optimizer.parameters.values():
            weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad / max(own.weight, 1e-12)
        found = super()._add_up(own)
        gradients = [weight.grad for weight in self.optimizer.parameters.values() if weight.grad is not None]
        torch._foreach_mul_(gradients, found.weight / self.ranks.count)  # undoes the division by the weight of all
        return found


class OwnPart(Gradients):
    """Wrong: every rank keeps its own gradient."""

    def _add_up(self, own: Accumulated) -> Accumulated:
        found = super()._add_up(own)
        return found._replace(weight=own.weight)


def observed(folder: Path) -> dict[str, Any]:
    """PPO with an early stop: what this rank met itself, what it decided, and the advantages of the first rollout."""
    trained = trainer("ppo", folder, stop_kl=0.002)
    source: Any = trained.batches
    own, given_up, advantages = [], [], []
    for _ in range(12):
        trained.step()
        own.append(list(source._observed))
        given_up.append(source.given_up)
        if not advantages:
            advantages = source.buffer["advantages"].tolist()
    return {"own": own, "given_up": given_up, "iteration": source.iteration, "advantages": advantages}


def whitened(folder: Path) -> dict[str, Any]:
    """Half of a table whitened on each rank, over both and (wrongly) by itself."""
    generator = torch.Generator().manual_seed(3)
    values, mask = torch.randn(8, 5, generator=generator), torch.rand(8, 5, generator=generator) > 0.3
    ranks = current()
    part = slice(ranks.number, None, ranks.count)
    over_all = whiten(values[part], mask[part], reduce=ranks.add)
    return {"over_all": over_all.tolist(), "alone": whiten(values[part], mask[part]).tolist()}


def sharded(kind: str, folder: Path, local: bool = False, **changes: Any) -> list[float]:
    """A training with its weights spread over the ranks; local: Muon orthogonalises each part by itself, which is wrong."""
    from duihua.training import sharding

    class Local(sharding.ShardedMuon):
        def _whole(self, part: Tensor, name: str) -> Tensor:
            whole = super()._whole(part, name)
            return torch.cat([_orthogonal(rows) for rows in whole.chunk(current().count)]) if local else whole

    before, sharding.ShardedMuon = sharding.ShardedMuon, Local  # type: ignore[misc]
    try:
        return curve(trainer(kind, folder / f"sharded-{local}", sharding="full", **changes), 12)
    finally:
        sharding.ShardedMuon = before  # type: ignore[misc]


def _orthogonal(rows: Tensor) -> Tensor:
    left, _, right = torch.linalg.svd(rows, full_matrices=False)
    return left @ right


CASES: dict[str, Callable[[Path], Any]] = {
    "pretrain": lambda folder: curve(trainer("pretrain", folder)),
    "masked": lambda folder: curve(trainer("masked", folder), 12),
    "sft": lambda folder: curve(trainer("sft", folder)),
    "reward": lambda folder: curve(trainer("reward", folder)),
    "ppo": lambda folder: curve(trainer("ppo", folder)),
    "recomputed": lambda folder: curve(trainer("sft", folder, gradient_checkpointing=True), 10),
    "bf16": lambda folder: curve(trainer("sft", folder, precision="bf16"), 10),
    "fp16": lambda folder: curve(trainer("sft", folder, precision="fp16", loss_scale=256.0), 10),
    "observed": observed,
    "whitened": whitened,
}
"""The same on any number of ranks."""
WRONG: dict[str, Callable[[Path], Any]] = {
    "mean_of_means": lambda folder: curve(trainer("sft", folder, MeanOfMeans), 12),
    "own_part": lambda folder: curve(trainer("sft", folder, OwnPart), 12),
}
SHARDED: dict[str, Callable[[Path], Any]] = {
    "sharded pretrain": lambda folder: sharded("pretrain", folder),
    "sharded masked": lambda folder: sharded("masked", folder),
    "sharded sft": lambda folder: sharded("sft", folder),
    "sharded reward": lambda folder: sharded("reward", folder),
    "sharded recomputed": lambda folder: sharded("sft", folder, gradient_checkpointing=True),
    "muon on a shard": lambda folder: sharded("sft", folder, local=True),
}


def go_on(kind: str, folder: Path, until: int, **changes: Any) -> list[float]:
    """Go on from the newest checkpoint to a step, and write another; the losses of these steps."""
    trained = trainer(kind, folder, **changes)
    trained.directory.mkdir(parents=True, exist_ok=True)
    trained._resume()
    losses = curve(trained, until - trained.step_number)
    trained.save()
    return losses


RESUMED = (("pretrain", {}), ("ppo", {"stop_kl": 0.002}), ("sft", {"sharding": "full"}))


def part(folder: Path, until: int) -> dict[str, list[float]]:
    """A third of each training that changes its number of ranks."""
    return {kind: go_on(kind, folder / "resumed", until, **changes) for kind, changes in RESUMED}


STAGES = ("ppo", "dpo", "grpo", "rejection_sampling")
"""Run whole, as commands: what is before and after their training is spread over ranks too."""
SHARDED_STAGE = "dpo"
SEEDED_STAGE = "ppo"


def seed_of_rank(right: Any, run_seed: int, *place: int) -> int:
    """Wrong: another rank draws another reply to the same prompt."""
    return int(right(run_seed + current().number, *place))


SEED_OF_RANK = ("duihua.engine.randomness:sample_seed", seed_of_rank)


@contextmanager
def mutated(target: str, wrong: Callable[..., Any]) -> Iterator[None]:
    """A mutation of the checklist, in this rank."""
    path = Path(__file__).parent.parent / "checklist_plugin.py"
    mutation = runpy.run_path(str(path))["Mutation"]("", target, wrong)
    with pytest.MonkeyPatch.context() as patch:
        mutation.apply(patch)
        yield


def stage(argv: Sequence[str], output: Path, *more: str, gradients: type[Gradients] = Gradients) -> dict[str, Any]:
    """Run a stage's command here; the losses of its steps, some figures of its result, and replies, reward and KL of its
    rollouts (all empty where another rank has them)."""
    from duihua.cli.main import main as command
    from duihua.training import trainer as module

    before, module.Gradients = module.Gradients, gradients  # type: ignore[misc]
    try:
        code = command([*argv, "--output", str(output), "--set", "trainer.log_every=1", "--set", "samples=8", *more])
    finally:
        module.Gradients = before  # type: ignore[misc]
    assert code == 0, code
    metrics, result = output / "metrics.jsonl", output / "result.json"
    if not current().first or not result.is_file():
        return {}
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    found = json.loads(result.read_text(encoding="utf-8"))["metrics"]
    figures = {name: found.get(name) for name in ("steps", "skipped_steps", "kept", "pairs")}
    drawn = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(output.glob("rollouts/*.json"))]
    rollouts = [
        {
            "replies": [sample["text"] for sample in one["samples"]],
            "means": [one["figures"][n] for n in ("reward", "kl")],
        }
        for one in drawn
    ]
    return {"losses": [line["loss"] for line in lines if "loss" in line], "figures": figures, "rollouts": rollouts}


def stages(out: Path, ports: Iterator[str]) -> dict[str, Any]:
    """Every stage of STAGES on these ranks, right and with each rank's own gradient; one with its weights spread, and one with
    seeds that depend on the rank."""
    found: dict[str, Any] = {}
    for name in STAGES:
        argv = json.loads((out / "families.json").read_text(encoding="utf-8"))[name]
        os.environ["MASTER_PORT"] = next(ports)
        found[f"stage {name}"] = stage(argv, out / "stages" / name)
        os.environ["MASTER_PORT"] = next(ports)
        found[f"own part {name}"] = stage(argv, out / "wrong" / name, gradients=OwnPart)
        if name == SHARDED_STAGE:
            os.environ["MASTER_PORT"] = next(ports)
            found[f"sharded {name}"] = stage(argv, out / "sharded" / name, "--set", "trainer.sharding=full")
        if name == SEEDED_STAGE:
            os.environ["MASTER_PORT"] = next(ports)
            with mutated(*SEED_OF_RANK):
                found[f"seed of rank {name}"] = stage(argv, out / "seeded" / name)
    return found


PORTS = 2 + 2 * len(STAGES) + 2


def main(out: Path, ports: list[str]) -> None:
    """Two ranks for all cases and the first part, the first rank alone for the second, two ranks for the last and the
    stages."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    number = int(os.environ["RANK"])
    os.environ["MASTER_PORT"] = ports[0]
    with joined("cpu"):
        for name, case in {**CASES, **WRONG, **SHARDED}.items():
            found[name] = case(out / f"{name}")
        first = part(out, 8)
    middle = part(out, 16) if number == 0 else {}
    os.environ["MASTER_PORT"] = ports[1]
    with joined("cpu"):
        last = part(out, 24)
    found["resumed"] = {kind: first[kind] + middle.get(kind, []) + last[kind] for kind in first}
    found |= stages(out, iter(ports[2:]))
    (out / f"rank{number}.json").write_text(json.dumps(found))


def differences(a: Any, b: Any) -> Iterator[float]:
    """Relative differences of two nested lists of numbers."""
    if isinstance(a, list):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            yield from differences(one, other)
    else:
        assert math.isfinite(a) and math.isfinite(b)
        yield abs(a - b) / max(abs(a), abs(b), 1e-3)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
