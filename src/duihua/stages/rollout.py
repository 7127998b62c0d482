"""The rollout: replies sampled from the policy, judged, turned into advantages, and handed out as minibatches.

It is a batch source like any other (`next`, `state_dict`, `load_state_dict`), so PPO needs no training loop of its own.
`next` samples a new rollout when the last one is used up, or given up because the policy moved too far from the one that
sampled it. Buffer, place in it, KL controller and the KL met last go into the checkpoint; prompts, permutations and the
replies' seeds are hashes of (run seed, iteration, ...), so that nothing else needs saving and nothing depends on ranks.

The old log-probabilities are computed by the trainer's own forward in the very micro-batches of the first update, which
makes the first ratio exactly 1; what the sampler recorded through its cache must agree with them to rounding, or training
stops. One rollout is: Ouyang et al. 2022, section 3.5; Huang et al. 2024, details 1-20.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from duihua.data.halves import halve_rows
from duihua.engine.randomness import sample_seed
from duihua.models.decoder import Decoder
from duihua.stages.actor_critic import Actor, ActorCritic, ReplyBatch, reply_log_probabilities
from duihua.stages.agreement import check_agreement
from duihua.stages.configs.grpo import GRPOConfig
from duihua.stages.configs.ppo import PPOConfig
from duihua.stages.live_doctor import LiveDoctor
from duihua.stages.ppo_math import (
    KLController,
    Reduce,
    explained_variance,
    generalized_advantages,
    kl_rewards,
    penalise_missing_end,
    whiten,
)
from duihua.stages.prompt_order import order_of_prompts, permutation
from duihua.stages.replies import Prompt, Reply, Sampler, Scorer
from duihua.stages.rollout_figures import ROLLOUT_METRICS, Credit, Judged, reply_figures, show_rollout
from duihua.text.tokenizer import Tokenizer
from duihua.training.ranks import current

Batch = dict[str, Tensor]


class Rollout:
    """Samples, judges and hands out; see the module's text. `network` is the one that the Trainer updates."""

    columns: ClassVar[tuple[str, ...]] = ("logprobs", "values", "advantages", "returns")
    """What the loss reads of each reply token."""
    metrics: ClassVar[tuple[str, ...]] = ROLLOUT_METRICS
    stage: ClassVar[str] = "ppo"
    """The stage that errors name."""
    needs_network: ClassVar[bool] = True
    """It reads the network that is trained, so that this must be whole on every rank."""

    def __init__(
        self,
        network: ActorCritic | Actor,
        reference: Decoder,
        scorer: Scorer,
        sampler: Sampler,
        prompts: Sequence[Prompt],
        tokenizer: Tokenizer,
        config: PPOConfig | GRPOConfig,
        *,
        seed: int,
        directory: Path | None = None,
        gold: Scorer | None = None,
        reduce: Reduce | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.network, self.reference, self.scorer, self.gold = network, reference, scorer, gold
        self.sampler, self.prompts, self.tokenizer, self.config = sampler, prompts, tokenizer, config
        self.seed, self.directory, self.ranks = seed, directory, current()
        self.reduce = reduce or self.ranks.add
        self.dtype = dtype
        self.doctor = LiveDoctor(self.stage, directory)
        self.controller = KLController(config.kl_coefficient, config.kl_target, config.kl_horizon)
        self.iteration = 0  # rollouts made
        self.cursor = 0  # updates handed out of the present one
        self.given_up = 0  # rollouts left early
        self.buffer: Batch = {}
        self._observed = [0.0, 0.0]  # approximate KL (sum, tokens) of the last update

    # -- the batch source --------------------------------------------------------------------------------------------

    def next(self) -> list[Batch]:
        """The micro-batches of one update."""
        return self.share(0, 1)

    def share(self, rank: int, ranks: int) -> list[Batch]:
        """The replies of one of several ranks, of each micro-batch those numbered rank, rank + ranks, ...; {} for none."""
        updates = self.config.epochs * self.config.minibatches
        if self.cursor < updates and self._moved_too_far():  # after the last one nothing is left to give up
            self.given_up += 1
            self.buffer = {}
        if not self.buffer or self.cursor == updates:
            self._collect()
        epoch, part = divmod(self.cursor, self.config.minibatches)
        self.cursor += 1
        self._observed = [0.0, 0.0]
        mine = [rows[rank::ranks] for rows in self._minibatches(self.iteration - 1, epoch)[part]]
        return [self._cut(rows) if len(rows) else {} for rows in mine]

    def halves(self, batch: Batch) -> list[Batch]:
        """A micro-batch as two, where the memory does not hold it; the rollout's figures are everybody's."""
        return halve_rows(batch, whole=("rollout",))

    def restart(self) -> None:
        """The update is done once more: what its micro-batches have told is forgotten."""
        self._observed = [0.0, 0.0]

    def observe(self, kl_sum: float, tokens: float) -> None:
        """The loss tells the approximate KL of each micro-batch here; `next` decides by it."""
        self._observed[0] += kl_sum
        self._observed[1] += tokens

    def state_dict(self) -> dict[str, Any]:
        """Everything that is not a function of seed and iteration; the same on every rank, all of which must ask."""
        return {
            "iteration": self.iteration,
            "cursor": self.cursor,
            "given_up": self.given_up,
            "coefficient": self.controller.coefficient,
            "observed": self._observed_by_all(),
            "buffer": self.buffer,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.iteration, self.cursor, self.given_up = state["iteration"], state["cursor"], state["given_up"]
        self.controller.coefficient = state["coefficient"]
        self._observed = list(state["observed"]) if self.ranks.first else [0.0, 0.0]
        self.buffer = dict(state["buffer"])

    def _moved_too_far(self) -> bool:
        """Whether the last update met a larger KL than allowed; summed over ranks, so that all decide alike."""
        total, tokens = self._observed_by_all()
        return bool(self.config.stop_kl and tokens and total / tokens > self.config.stop_kl)

    def _observed_by_all(self) -> list[float]:
        """What all ranks have observed together."""
        found: list[float] = self.reduce(torch.tensor(self._observed, dtype=torch.float64)).tolist()
        return found

    def _minibatches(self, iteration: int, epoch: int) -> list[list[Tensor]]:
        """For each update of an epoch the rows of its micro-batches: a fresh permutation, cut up.

        Inside an update rows of like length share a micro-batch, which saves pads and changes nothing else.
        """
        order = permutation(len(self.buffer["reply_mask"]), self.seed, "shuffle", iteration, epoch)
        lengths = self.buffer["prompt_lengths"] + self.buffer["reply_mask"].sum(dim=1)
        updates = (part[lengths[part].argsort(stable=True)] for part in order.chunk(self.config.minibatches))
        return [list(torch.split(part, self.config.micro_batch)) for part in updates]

    def _cut(self, rows: Tensor) -> Batch:
        packed = self._packed(rows)
        batch: Batch = {
            "token_ids": packed.token_ids_bt,
            "prompt_lengths": packed.prompt_lengths_b,
            "reply_mask": packed.reply_mask_br,
            "rollout": self.buffer["rollout"],
        }
        for name in self.columns:
            batch[name] = self.buffer[name][rows]
        return batch

    def _packed(self, rows: Tensor) -> ReplyBatch:
        whole = ReplyBatch(self.buffer["token_ids"], self.buffer["prompt_lengths"], self.buffer["reply_mask"])
        return whole.rows(rows)

    # -- making a rollout --------------------------------------------------------------------------------------------

    def _draw(self) -> tuple[list[Prompt], list[int]]:
        """The prompts of the next rollout and the seed of the reply to each."""
        config = self.config
        chosen = order_of_prompts(
            len(self.prompts), self.seed, self.iteration * config.rollout_prompts, config.rollout_prompts
        )
        prompts = [self.prompts[index] for index in chosen]
        # A prompt can stand twice in one rollout when there are few: `sample` then tells its replies apart.
        seeds = [
            sample_seed(self.seed, self.iteration, prompt.index, chosen[:place].count(chosen[place]))
            for place, prompt in enumerate(prompts)
        ]
        return prompts, seeds

    @torch.no_grad()
    def _collect(self) -> None:
        prompts, seeds = self._draw()
        self.network.eval()
        replies = self.sampler(prompts, seeds)
        packed = ReplyBatch.pack(
            [prompt.ids for prompt in prompts], [reply.ids for reply in replies], self.tokenizer.pad_id
        )
        self.buffer = {
            "token_ids": packed.token_ids_bt,
            "prompt_lengths": packed.prompt_lengths_b,
            "reply_mask": packed.reply_mask_br,
        }
        judged = self._judge(prompts, replies)
        sampled = torch.tensor([value for reply in replies for value in reply.logprobs])
        trained = judged.logprobs_nr[self.buffer["reply_mask"]]
        difference = check_agreement(
            sampled, trained, self.dtype, f"{self.stage}, rollout {self.iteration}", self._read_in_fp32
        )
        self._learn_from(prompts, replies, judged, difference)
        self.iteration += 1
        self.cursor = 0

    def _judge(self, prompts: Sequence[Prompt], replies: Sequence[Reply]) -> Judged:
        """What policy, critic, reference and reward model say of the replies, in the first update's micro-batches; each
        rank reads the rows that it will learn from, and all know all in the end."""
        columns = [torch.zeros(self.buffer["reply_mask"].shape) for _ in range(4)]
        for rows, batch in self._own_batches():
            with self._autocast(batch.token_ids_bt.device.type):
                readings = self.network(batch, self.config.temperature, entropy=True)
                reference_br = reply_log_probabilities(self.reference, batch, self.config.temperature)
            of_policy = (readings.logprobs, reference_br, readings.values, readings.entropies)
            for column, found in zip(columns, of_policy, strict=True):
                column[rows] = found.cpu()
        self.ranks.add_all(columns)  # each row stands on one rank and is zero on the others
        scores = self.scorer(prompts, replies).float().cpu()
        gold = None if self.gold is None else self.gold(prompts, replies).float().cpu()
        return Judged(columns[0], columns[1], columns[2], columns[3], scores, gold)

    def _read_in_fp32(self) -> Tensor:
        """The policy's log-probabilities of the rollout's tokens without autocast."""
        mask = self.buffer["reply_mask"]
        column = torch.zeros(mask.shape)
        for rows, batch in self._own_batches():
            column[rows] = reply_log_probabilities(self.network.policy, batch, self.config.temperature).cpu()
        self.ranks.add_all([column])
        return column[mask]

    def _own_batches(self) -> Iterator[tuple[Tensor, ReplyBatch]]:
        """The first update's micro-batches, with the numbers of their rows: of each the rows that this rank learns from."""
        device = self.network.policy.embedding.weight.device
        for update in self._minibatches(self.iteration, 0):
            for whole in update:
                rows = whole[self.ranks.number :: self.ranks.count]
                if len(rows):
                    yield rows, ReplyBatch(*(tensor.to(device) for tensor in self._packed(rows)))

    def _autocast(self, device_type: str) -> contextlib.AbstractContextManager[object]:
        return torch.autocast(device_type, dtype=self.dtype) if self.dtype else contextlib.nullcontext()

    def _learn_from(
        self, prompts: Sequence[Prompt], replies: Sequence[Reply], judged: Judged, difference: float
    ) -> None:
        """Rewards, advantages and returns into the buffer; figures and samples to the log."""
        config, mask = self.config, self.buffer["reply_mask"]
        ended = torch.tensor([reply.ended for reply in replies])
        scores = penalise_missing_end(judged.scores_n, ended, rule=config.missing_end, value=config.missing_end_value)
        kl_n = ((judged.logprobs_nr - judged.reference_nr) * mask).sum(dim=1)
        credit = self._credit(judged, scores)
        texts = [self.tokenizer.decode(reply.ids) for reply in replies]
        figures = {
            **reply_figures(judged, mask, kl_n, credit.totals_n, ended, texts),
            "kl_coefficient": self.controller.coefficient,
            "sampler_difference": difference,
            "iteration": float(self.iteration),
            **credit.figures,
        }
        self.buffer |= {
            "logprobs": judged.logprobs_nr,
            **credit.columns,
            "rollout": torch.tensor([figures[name] for name in self.metrics], dtype=torch.float64),
        }
        self.controller.update(figures["kl"], len(replies))
        self._show(prompts, texts, judged.scores_n, kl_n, credit.totals_n, figures)

    def _credit(self, judged: Judged, scores_n: Tensor) -> Credit:
        """The KL penalty on every token and the score on the last; advantages by GAE, whitened over the rollout."""
        config, mask = self.config, self.buffer["reply_mask"]
        assert isinstance(config, PPOConfig)
        rewards = kl_rewards(judged.logprobs_nr, judged.reference_nr, scores_n, mask, self.controller.coefficient)
        totals_n = rewards.sum(dim=1)
        if config.whiten_rewards:
            rewards = whiten(rewards, mask, shift_mean=False)
        advantages, returns = generalized_advantages(
            rewards, judged.values_nr, mask, gamma=config.gamma, lam=config.gae_lambda
        )
        columns = {"values": judged.values_nr, "advantages": whiten(advantages, mask), "returns": returns}
        return Credit(totals_n, columns, {"explained_variance": explained_variance(judged.values_nr, returns, mask)})

    def _show(
        self,
        prompts: Sequence[Prompt],
        texts: Sequence[str],
        scores_n: Tensor,
        kl_n: Tensor,
        totals_n: Tensor,
        figures: dict[str, float],
    ) -> None:
        """One sampled reply to the console, a few to <directory>/rollouts; see rollout_figures.py."""
        if self.directory is not None:
            samples = self.config.samples
            show_rollout(self.directory, self.iteration, samples, prompts, texts, scores_n, kl_n, totals_n, figures)
            self.doctor.look(self.iteration, figures)
