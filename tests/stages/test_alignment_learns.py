"""It must learn, and what is broken must not: PPO, GRPO, RLOO and DPO on tasks of seconds that anyone can check.

The task. A tiny random decoder answers tiny prompts; the reward looks at the first token of the reply alone, 4 x its place in
a shuffled vocabulary (0 to 1), on top of a constant of 6, and comes at the reply's end, after a number of tokens that the
policy draws (for PPO a reply of one token earns the middle). Every part of that is there to break something: credit must
reach back over the tokens (GAE's direction, a score that comes one token late), the constant and the different lengths must
not matter (whitening without the pads), and the reward always pays for going further, so that only the KL penalty keeps the
policy at home.

The best policy for a penalty beta tilts the first token by exp(reward / beta); with 4 / beta = 8 it earns 1.5 more than
chance and stands 1.1 nats from the reference. A run is right when it gains MARGIN and stays inside BUDGET; one fault, old
log-probabilities that follow the policy, needs many epochs on each rollout to show, for which `FEW_ROLLOUTS` has a lower
margin that the right code clears and the wrong one does not.

All learning tests together, these and test_reward_learns.py, take 1.5 minutes of one core's time (`pytest -m learning`; 3.2
minutes beside two other programs on two cores); CI has 6 minutes for them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import duihua.stages.rollout as rollout_module
from duihua.data.source import SourceConfig
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder
from duihua.stages import agreement, dpo, grpo, ppo
from duihua.stages.actor_critic import Actor, ActorCritic, ReplyBatch, freeze, reply_log_probabilities
from duihua.stages.comparison import Comparison, compare
from duihua.stages.configs.dpo import DPOConfig
from duihua.stages.configs.grpo import GRPOConfig
from duihua.stages.configs.ppo import PPOConfig
from duihua.stages.group_rollout import GroupRollout
from duihua.stages.preference_rows import Tree, TreeBatches, all_log_probabilities
from duihua.stages.replies import Prompt, Reply, engine_sampler
from duihua.stages.rollout import Rollout
from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig
from duihua.training.trainer import Trainer

pytestmark = [pytest.mark.learning, pytest.mark.slow]

MARGIN = 0.65
"""How far the mean reward must rise, in the reward's own unit: two fifths of what is possible under the penalty."""
BUDGET = 2.7
"""How far the policy may be from the reference, in nats a reply."""
SCALE, CONSTANT = 4.0, 6.0
SEEDS = (1, 2, 3)


class Letters:
    """A tokenizer of 32 ids, every fourth of which ends a reply, so that replies differ in length."""

    vocabulary_size, pad_id = 32, 0
    stop_ids = tuple(range(3, 32, 4))

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(ord("A") + id) for id in ids)


def random_decoder(seed: int) -> Decoder:
    """A decoder that knows nothing: all tokens are about equally likely everywhere."""
    shape = DecoderConfig(
        vocabulary_size=32, width=32, layers=2, heads=2, key_value_heads=1, head_width=16, feed_forward_width=48,
        context=24,
    )  # fmt: skip
    decoder = Decoder(shape).initialise(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in decoder.named_parameters():
            if name.endswith(("attention.output.weight", "feed_forward.down.weight")):
                weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))
            elif name == "head.weight":
                weight.copy_(0.05 * torch.randn(weight.shape, generator=generator))
    return decoder


def first_token(reply: Reply) -> float:
    """The place of the reply's first token in the shuffled vocabulary."""
    return CONSTANT + SCALE * (reply.ids[0] * 13 % 32) / 31


def gold(prompts: Sequence[Prompt], replies: Sequence[Reply]) -> Tensor:
    """For PPO: a reply of one token earns the middle, so that all credit has to go back over a token."""
    return torch.tensor([first_token(reply) if len(reply.ids) > 1 else CONSTANT + SCALE / 2 for reply in replies])


def group_gold(prompts: Sequence[Prompt], replies: Sequence[Reply]) -> Tensor:
    """For GRPO and RLOO, which hand the whole reply's credit to every token of it."""
    return torch.tensor([first_token(reply) for reply in replies])


def prompts(count: int) -> list[Prompt]:
    """Prompts of 16 tokens, each different."""
    generator = torch.Generator().manual_seed(11)
    ids = torch.randint(0, 32, (count, 16), generator=generator).tolist()
    return [Prompt(i, [{"role": "user", "content": str(i)}], row) for i, row in enumerate(ids)]


SHARED: dict[str, Any] = {
    "sources": (SourceConfig(name="tiny-chat"),), "epochs": 4, "minibatches": 2, "micro_batch": 64,
    "missing_end": "none", "stop_kl": 0.0, "samples": 0, "slots": 64,
    "trainer": TrainerConfig(log_every=1, checkpoint_seconds=1e9),
}  # fmt: skip


def adam(rate: float) -> OptimizerConfig:
    return OptimizerConfig(kind="adamw", learning_rate=rate, beta1=0.9, beta2=0.999, epsilon=1e-5)


def ppo_settings(**changes: Any) -> PPOConfig:
    """Replies of up to 6 tokens, so that credit has a way to go."""
    base = PPOConfig(
        **SHARED, iterations=24, rollout_prompts=64, reply_tokens=6, kl_coefficient=SCALE / 8, value_coefficient=0.01,
        optimizer=adam(6e-3),
    )  # fmt: skip
    return replace(base, **changes)


def group_settings(**changes: Any) -> GRPOConfig:
    """Replies of up to 2 tokens: without a critic every token of a reply has the same credit, and the others are noise."""
    base = GRPOConfig(
        **SHARED, iterations=24, rollout_prompts=16, group=4, reply_tokens=2, kl_coefficient=SCALE / 10,
        optimizer=adam(1e-2),
    )  # fmt: skip
    return replace(base, **changes)


def learnt(directory: Path, config: PPOConfig | GRPOConfig, seed: int = 1, sampled_at: float = 0.0) -> Comparison:
    """The reward before and after a run. sampled_at: another temperature for the sampler alone."""
    policy = random_decoder(seed)
    start = copy.deepcopy(policy)
    reference = copy.deepcopy(policy)
    freeze(reference)
    tokenizer: Any = Letters()
    sampler = engine_sampler(
        policy, tokenizer, reply_tokens=config.reply_tokens, temperature=sampled_at or config.temperature, slots=64
    )
    made: Rollout
    if isinstance(config, GRPOConfig):
        made = GroupRollout(Actor(policy), reference, group_gold, sampler, prompts(64), tokenizer, config, seed=seed)
        loss: Any = grpo.Loss(config, made)
    else:
        made = Rollout(ActorCritic(policy), reference, gold, sampler, prompts(64), tokenizer, config, seed=seed)
        loss = ppo.Loss(config, made)
    Trainer(
        made.network, loss, made, steps=config.steps, optimizer=config.optimizer,
        schedule=ScheduleConfig(kind="linear", warmup_steps=0), config=config.trainer, directory=directory, seed=seed,
    ).run()  # fmt: skip
    asked = replace(config, temperature=sampled_at) if sampled_at else config
    scorer = group_gold if isinstance(config, GRPOConfig) else gold
    return compare(start, policy, scorer, prompts(160)[64:], tokenizer, asked, seed=9)


def is_right(found: Comparison, margin: float = MARGIN) -> bool:
    """It has learnt, and stayed near."""
    return found.gain.value > margin and 0.0 < found.kl < BUDGET


def said(found: Comparison) -> str:
    return f"gain {found.gain.value:.2f}, KL {found.kl:.2f}"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "config",
    [ppo_settings(), group_settings(), group_settings(kind="rloo")],
    ids=["PPO", "GRPO", "RLOO"],
)
def test_the_reward_rises_inside_the_budget(tmp_path: Path, config: PPOConfig | GRPOConfig, seed: int) -> None:
    found = learnt(tmp_path, config, seed)
    assert is_right(found), said(found)
    assert found.gain.value > 3 * found.gain.standard_error


# -- the ten ways of being wrong --------------------------------------------------------------------------------------

Patch = pytest.MonkeyPatch


def without_agreement(patch: Patch) -> None:
    """What would stop the run at its first rollout is switched off: the fault must show in what is learnt, too."""
    for bound in ("AGREEMENT", "MEAN_AGREEMENT"):
        patch.setattr(agreement, bound, {torch.float32: 1e9})


def flipped_advantage(patch: Patch) -> None:
    right = rollout_module.whiten
    patch.setattr(rollout_module, "whiten", lambda *a, **k: -right(*a, **k))


def score_one_token_late(patch: Patch) -> None:
    right = rollout_module.kl_rewards
    patch.setattr(rollout_module, "kl_rewards", lambda *a: right(*a).roll(1, dims=1) * a[3])


def padding_in_the_whitening(patch: Patch) -> None:
    right = rollout_module.whiten
    patch.setattr(rollout_module, "whiten", lambda values, mask, **k: right(values, torch.ones_like(mask), **k))


def log_probabilities_shifted(patch: Patch) -> None:
    right = ReplyBatch.columns

    def columns(self: ReplyBatch) -> Tensor:
        return (right(self) + 1).clamp(max=self.token_ids_bt.shape[1] - 1)

    without_agreement(patch)
    patch.setattr(ReplyBatch, "columns", columns)


def reference_follows_the_policy(patch: Patch) -> None:
    right = Rollout._collect

    def collect(self: Rollout) -> None:
        self.reference.load_state_dict(self.network.policy.state_dict())
        right(self)

    patch.setattr(Rollout, "_collect", collect)


def advantages_run_forwards(patch: Patch) -> None:
    def forwards(rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
        after = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1) * mask.roll(-1, dims=1)
        deltas = (rewards + gamma * after - values) * mask
        advantages, running = torch.zeros_like(deltas), torch.zeros_like(deltas[:, 0])
        for step in range(deltas.shape[1]):
            running = deltas[:, step] + gamma * lam * running
            advantages[:, step] = running * mask[:, step]
        return advantages, (advantages + values) * mask

    patch.setattr(rollout_module, "generalized_advantages", forwards)


def prompt_in_the_loss(patch: Patch) -> None:
    """The mask begins at the prompt's second token; prompt tokens have the advantage of the reply's first."""
    right = Rollout._cut

    def cut(self: Rollout, rows: Tensor) -> dict[str, Tensor]:
        batch = right(self, rows)
        prompt = int(batch["prompt_lengths"][0]) - 1  # all prompts of this task are equally long
        every = torch.cat([torch.ones(len(rows), prompt, dtype=torch.bool), batch["reply_mask"]], dim=1)
        whole = ReplyBatch(batch["token_ids"], torch.ones_like(batch["prompt_lengths"]), every)
        with torch.no_grad():
            before = reply_log_probabilities(self.network.policy, whole, self.config.temperature)[:, :prompt]
        for name in ("advantages", "returns", "values"):
            first = batch[name][:, :1].expand(-1, prompt)
            batch[name] = torch.cat([first, batch[name]], dim=1)
        batch["logprobs"] = torch.cat([before, batch["logprobs"]], dim=1)
        return batch | {"prompt_lengths": whole.prompt_lengths_b, "reply_mask": every}

    patch.setattr(Rollout, "_cut", cut)


def old_log_probabilities_of_each_epoch(patch: Patch) -> None:
    right = Rollout.next

    def following(self: Rollout) -> list[dict[str, Tensor]]:
        batches = right(self)
        if (self.cursor - 1) % self.config.minibatches:
            return batches
        with torch.no_grad():
            whole = ReplyBatch(*(self.buffer[name] for name in ("token_ids", "prompt_lengths", "reply_mask")))
            self.buffer["logprobs"] = reply_log_probabilities(self.network.policy, whole, self.config.temperature)
        self.cursor -= 1
        return right(self)

    patch.setattr(Rollout, "next", following)


@dataclass(frozen=True)
class Fault:
    """One way of being wrong, in the code and in the settings. sampled_at: as in `learnt`."""

    name: str
    apply: Callable[[Patch], None]
    settings: tuple[tuple[str, Any], ...] = ()
    sampled_at: float = 0.0


FAULTS: tuple[Fault, ...] = (
    Fault("the sign of the advantage", flipped_advantage),
    Fault("the score one token late", score_one_token_late),
    Fault("padding in the whitening", padding_in_the_whitening),
    Fault("log-probabilities shifted by one", log_probabilities_shifted),
    Fault("another temperature than the sampler's", without_agreement, (("temperature", 4.0),), sampled_at=1.0),
    Fault("the reference follows the policy", reference_follows_the_policy),
    Fault("advantages run forwards", advantages_run_forwards),
    Fault("prompt tokens in the loss", prompt_in_the_loss),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_broken_variant_misses_the_margin_or_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    fault.apply(monkeypatch)
    found = learnt(tmp_path, ppo_settings(**dict(fault.settings)), sampled_at=fault.sampled_at)
    assert not is_right(found), said(found)


def test_without_the_kl_penalty_the_policy_leaves_the_budget(tmp_path: Path) -> None:
    """And for no other reason is it wrong: it earns what it should, since every step away from home is paid for."""
    found = learnt(tmp_path, ppo_settings(kl_coefficient=0.0))
    assert found.kl > BUDGET and found.gain.value > MARGIN, said(found)


FEW_ROLLOUTS: dict[str, Any] = {"epochs": 12, "iterations": 12, "clip": 0.1}
FEW_ROLLOUTS_MARGIN = 0.3
"""Half the rollouts, twelve epochs on each and a narrow clip, which holds the policy back: a smaller gain, and no escape.
Measured over the three seeds: the right code gains 0.59 to 0.77 at 0.8 to 1.2 nats; old log-probabilities that are computed
anew in each epoch, so that the clip starts from wherever the policy has got to, -0.03 to 0.24 at 3.3 to 3.6 nats."""


@pytest.mark.parametrize("seed", SEEDS)
def test_the_clip_holds_over_many_epochs(tmp_path: Path, seed: int) -> None:
    found = learnt(tmp_path, ppo_settings(**FEW_ROLLOUTS), seed)
    assert is_right(found, FEW_ROLLOUTS_MARGIN), said(found)


@pytest.mark.parametrize("seed", SEEDS)
def test_old_log_probabilities_of_each_epoch_let_it_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """The tenth fault, by the bar that the right code clears in the test above, and beyond the budget by itself."""
    old_log_probabilities_of_each_epoch(monkeypatch)
    found = learnt(tmp_path, ppo_settings(**FEW_ROLLOUTS), seed)
    assert not is_right(found, FEW_ROLLOUTS_MARGIN) and found.kl > BUDGET, said(found)


# -- DPO --------------------------------------------------------------------------------------------------------------


def rule_trees(count: int, seed: int, coin: bool = False) -> list[Tree]:
    """Pairs of random replies of one length: the one with more even ids is preferred, or, by a coin, either."""
    generator = torch.Generator().manual_seed(seed)

    def ids(length: int) -> list[int]:
        found: list[int] = torch.randint(0, 32, (length,), generator=generator).tolist()
        return found

    trees: list[Tree] = []
    while len(trees) < count:
        sides = [ids(3 + len(trees) % 4), ids(3 + len(trees) % 4)]
        shares = [sum(id % 2 == 0 for id in side) / len(side) for side in sides]
        if shares[0] != shares[1]:
            first = int(torch.randint(0, 2, (1,), generator=generator)) if coin else int(shares[1] > shares[0])
            trees.append(Tree(ids(6), sides[first], sides[1 - first]))
    return trees


def dpo_accuracy(directory: Path, coin: bool = False, **changes: Any) -> float:
    """Share of 200 held-out pairs, of the rule or of a coin, that the DPO policy has the right way round."""
    config = replace(DPOConfig(), row_tokens=64, micro_batch_tokens=1024, optimizer=adam(1e-2), **changes)
    policy = random_decoder(2)
    train, heldout = rule_trees(640, 1, coin), rule_trees(200, 2, coin)

    def read(trees: list[Tree]) -> Tensor:
        return all_log_probabilities(policy, trees, 64, 1024, pad_id=0)

    before = read(heldout)
    batches = TreeBatches(
        train, read(train), batch=16, row_tokens=64, micro_batch_tokens=1024, pad_id=0, seed=1
    )  # fmt: skip
    Trainer(
        policy, dpo.Loss(config), batches, steps=80, optimizer=config.optimizer,
        schedule=ScheduleConfig(kind="linear", warmup_steps=2), config=replace(config.trainer, checkpoint_seconds=1e9),
        directory=directory, seed=1,
    ).run()  # fmt: skip
    ratios = read(heldout) - before
    return float((ratios[:, 0] > ratios[:, 1]).double().mean())


@pytest.mark.parametrize("changes", [{}, {"label_smoothing": 0.1}, {"loss": "ipo"}], ids=["DPO", "cDPO", "IPO"])
def test_dpo_learns_a_rule_that_holds_on_held_out_pairs(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert dpo_accuracy(tmp_path, **changes) >= 0.9


def test_dpo_learns_nothing_from_a_coin(tmp_path: Path) -> None:
    """Negative control: whatever was learnt, 200 held-out tosses are right by chance, within 3 standard errors of it."""
    assert abs(dpo_accuracy(tmp_path, coin=True) - 0.5) < 3 * math.sqrt(0.25 / 200)
