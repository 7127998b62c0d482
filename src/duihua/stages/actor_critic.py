"""The two networks that PPO trains, policy and critic, as one module, and the log-probabilities of replies.

Why one function for the log-probabilities of policy and reference: the KL penalty is the difference of two such numbers,
and at the first step it must be exactly zero. Policy, reference and trainer therefore read replies through the same code,
in the same micro-batches.

Layout: a row is prompt, reply, pads. Reply token j of row i stands in column prompt_length_i + j; the state before it,
which predicts it and whose value the critic estimates, is the column to its left. Under causal attention no real token
sees a pad on its right, so no mask is needed.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from duihua.models.decoder import Decoder
from duihua.models.heads import ScoredDecoder


class ReplyBatch(NamedTuple):
    """Some replies with their prompts. t: prompt and reply; r: the longest reply."""

    token_ids_bt: Tensor
    prompt_lengths_b: Tensor
    reply_mask_br: Tensor

    @classmethod
    def pack(
        cls, prompts: list[list[int]], replies: list[list[int]], pad_id: int, device: torch.device | str = "cpu"
    ) -> ReplyBatch:
        """Prompt and reply ids, right-padded."""
        rows = [prompt + reply for prompt, reply in zip(prompts, replies, strict=True)]
        width, longest = max(map(len, rows)), max(map(len, replies))
        token_ids = torch.tensor([row + [pad_id] * (width - len(row)) for row in rows], device=device)
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        reply_lengths = torch.tensor([len(reply) for reply in replies], device=device)
        mask = torch.arange(longest, device=device)[None] < reply_lengths[:, None]
        return cls(token_ids, lengths, mask)

    def rows(self, index: Tensor) -> ReplyBatch:
        """Some of the rows, without the columns that are pads in all of them; masks keep their width."""
        lengths, mask = self.prompt_lengths_b[index], self.reply_mask_br[index]
        width = int((lengths + mask.sum(dim=1)).max())
        return ReplyBatch(self.token_ids_bt[index, :width], lengths, mask)

    def columns(self) -> Tensor:
        """The column before each reply token, (b, r), r the longest reply among these; behind a reply any column."""
        longest = int(self.reply_mask_br.sum(dim=1).max())
        steps = torch.arange(longest, device=self.token_ids_bt.device)
        return (self.prompt_lengths_b[:, None] - 1 + steps).clamp(max=self.token_ids_bt.shape[1] - 1)

    def states(self, x_brd: Tensor) -> Tensor:
        """Of what was read in `columns`, (b, r, ...), that before each real reply token, (n, ...), rows in order."""
        real = self.reply_mask_br[:, : x_brd.shape[1]].flatten().nonzero()[:, 0]
        return x_brd.flatten(0, 1).index_select(0, real)

    def tokens(self) -> Tensor:
        """The real reply tokens, (n,), in the order of `states`."""
        rows, steps = self.reply_mask_br.nonzero(as_tuple=True)
        return self.token_ids_bt[rows, self.prompt_lengths_b[rows] + steps]

    def spread(self, values_n: Tensor) -> Tensor:
        """The inverse of `states` for one number a token: (b, r), zero behind each reply."""
        spread_br = torch.zeros(self.reply_mask_br.shape, dtype=values_n.dtype, device=values_n.device)
        return spread_br.masked_scatter(self.reply_mask_br, values_n)


class Readings(NamedTuple):
    """Per reply token, (b, r) in fp32, zero behind each reply."""

    logprobs: Tensor
    values: Tensor
    entropies: Tensor


def _read_tokens(
    decoder: Decoder, states_nd: Tensor, batch: ReplyBatch, temperature: float, entropy: bool
) -> tuple[Tensor, Tensor]:
    if entropy:
        found = decoder.readings(states_nd, batch.tokens(), temperature)
        return found.logprobs_n, found.entropies_n
    logprobs_n = decoder.log_probabilities(states_nd, batch.tokens(), temperature)
    return logprobs_n, torch.zeros_like(logprobs_n)


def reply_log_probabilities(decoder: Decoder, batch: ReplyBatch, temperature: float = 1.0) -> Tensor:
    """log pi(token | what stands before it) of each reply token at the temperature, (b, r) in fp32."""
    states_nd = batch.states(decoder.hidden(batch.token_ids_bt, columns_br=batch.columns()))
    return batch.spread(_read_tokens(decoder, states_nd, batch, temperature, entropy=False)[0])


class Critic(nn.Module):
    """A value network of its own that starts as the reward model: its output is the reward model's, normalised alike."""

    def __init__(self, reward: ScoredDecoder, mean: float, std: float) -> None:
        super().__init__()
        self.reward, self.mean, self.std = reward, mean, std

    def forward(self, token_ids_bt: Tensor, columns_br: Tensor | None = None) -> Tensor:
        values: Tensor = (self.reward(token_ids_bt, columns_br=columns_br) - self.mean) / self.std
        return values


class ActorCritic(nn.Module):
    """Policy and critic. Without a critic of its own the value is a linear reading of the policy's last hidden vectors.

    The shared head starts at zero, so that V = 0 at step 0; a separate one starts at the reward model, so that V is its
    score (Huang et al. 2024, details 4 and 8).
    """

    def __init__(self, policy: Decoder, critic: Critic | None = None) -> None:
        super().__init__()
        self.policy = policy
        self.critic = critic
        self.value = nn.Linear(policy.config.width, 1, bias=False) if critic is None else None
        if self.value is not None:
            nn.init.zeros_(self.value.weight)

    def forward(self, batch: ReplyBatch, temperature: float, entropy: bool = False) -> Readings:
        """Log-probabilities and values of the reply tokens; entropies too where asked for (then without gradients)."""
        states_nd = batch.states(self.policy.hidden(batch.token_ids_bt, columns_br=batch.columns()))
        logprobs_n, entropies_n = _read_tokens(self.policy, states_nd, batch, temperature, entropy)
        if self.critic is not None:
            values_n = batch.states(self.critic(batch.token_ids_bt, batch.columns()))
        else:
            assert self.value is not None
            values_n = self.value(states_nd)[:, 0].float()
        return Readings(batch.spread(logprobs_n), batch.spread(values_n), batch.spread(entropies_n))


class Actor(nn.Module):
    """A policy without a critic, for methods that compare a reply with others to the same prompt: its values are zero."""

    def __init__(self, policy: Decoder) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, batch: ReplyBatch, temperature: float, entropy: bool = False) -> Readings:
        """Log-probabilities of the reply tokens; entropies too where asked for (then without gradients)."""
        states_nd = batch.states(self.policy.hidden(batch.token_ids_bt, columns_br=batch.columns()))
        logprobs_n, entropies_n = _read_tokens(self.policy, states_nd, batch, temperature, entropy)
        logprobs_br = batch.spread(logprobs_n)
        return Readings(logprobs_br, torch.zeros_like(logprobs_br), batch.spread(entropies_n))


def switch_off_dropout(*networks: nn.Module) -> None:
    """Set every dropout's probability to zero: the ratio compares two forwards, which must differ by the update alone."""
    for network in networks:
        for module in network.modules():
            if isinstance(module, nn.modules.dropout._DropoutNd):
                module.p = 0.0


def freeze(network: nn.Module) -> None:
    """No gradients, evaluation mode: the reference and the reward model never change."""
    network.requires_grad_(False).eval()
