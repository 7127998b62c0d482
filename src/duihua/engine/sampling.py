"""From logits to tokens: the settings of several rows, as tensors, applied to one batch of logits.

Every row is treated by its own settings with arithmetic that leaves the other rows' bits alone (a neutral setting
divides by 1, subtracts 0, keeps all), so that a request's text is the same in any company. The draw is by inverse CDF:
the first token, in the order of ids, whose cumulative probability exceeds the row's own uniform number; the sum is
kept in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from duihua.engine.randomness import fresh_seed, sample_seed, uniforms
from duihua.engine.settings import SamplingSettings, require_plain
from duihua.errors import GenerationError

__all__ = [
    "Drawn",
    "Row",
    "SamplingBatch",
    "SamplingSettings",
    "draw",
    "fresh_seed",
    "penalise",
    "require_plain",
    "sample_seed",
    "truncation_mask",
    "uniforms",
]


@dataclass(frozen=True)
class Row:
    """What the sampler must know of one request: its settings, its seed, its end tokens, and the ids so far."""

    settings: SamplingSettings
    seed: int
    stop_ids: tuple[int, ...] = ()
    prompt: Sequence[int] = ()
    generated: Sequence[int] = ()


@dataclass(frozen=True)
class Drawn:
    """One token for each row. logprobs: see settings.py. top: each row's (id, log-probability), likeliest first.

    Where a row's logits are no numbers its logprob is NaN and its token means nothing; the other rows are as ever.
    """

    tokens: list[int]
    logprobs: list[float]
    top: list[list[tuple[int, float]]] | None

    def check(self, row: int) -> None:
        """GenerationError when the logits of this row are no numbers."""
        if math.isnan(self.logprobs[row]):
            raise GenerationError(
                "the model gives logits that are not numbers", remedy="Its weights are broken: use another"
            )


def penalise(
    logits_bv: Tensor,
    seen_bv: Tensor,
    counts_bv: Tensor,
    *,
    repetition_b: Tensor,
    presence_b: Tensor,
    frequency_b: Tensor,
) -> Tensor:
    """Steps 1 and 2 of settings.py. seen_bv: in prompt or reply. counts_bv: times in the reply. Settings (b,)."""
    repeated = torch.where(logits_bv > 0, logits_bv / repetition_b[:, None], logits_bv * repetition_b[:, None])
    logits_bv = torch.where(seen_bv, repeated, logits_bv)
    return logits_bv - presence_b[:, None] * (counts_bv > 0) - frequency_b[:, None] * counts_bv


def truncation_mask(probabilities_bv: Tensor, top_k_b: Tensor, top_p_b: Tensor, min_p_b: Tensor) -> Tensor:
    """Steps 6-8 of settings.py: booleans (b, v), true for the tokens that may be drawn; the likeliest always may.

    top_k_b: int64, 0 for all. Of tokens with the same probability the lower id comes first, so exactly k are left.
    """
    sorted_bv, order_bv = probabilities_bv.sort(dim=-1, descending=True, stable=True)
    ranks_v = torch.arange(sorted_bv.shape[-1], device=sorted_bv.device)
    kept_bv = (ranks_v < top_k_b[:, None]) | (top_k_b[:, None] == 0)
    left_bv = (sorted_bv * kept_bv).double()
    before_bv = left_bv.cumsum(dim=-1) - left_bv  # probability of all tokens ahead of this one
    # The token that reaches top_p belongs to the nucleus. Rows without a top_p are kept whole whatever the rounding.
    kept_bv &= (before_bv < top_p_b[:, None].double() * left_bv.sum(dim=-1, keepdim=True)) | (top_p_b[:, None] >= 1.0)
    kept_bv &= sorted_bv >= min_p_b[:, None] * sorted_bv[:, :1]
    kept_bv[:, 0] = True
    return torch.zeros_like(kept_bv).scatter(-1, order_bv, kept_bv)


def draw(probabilities_bv: Tensor, uniforms_b: Tensor) -> Tensor:
    """Token ids (b,) by inverse CDF. probabilities_bv need not sum to 1; a token of probability 0 is never drawn."""
    cumulative_bv = probabilities_bv.cumsum(dim=-1, dtype=torch.float64)
    threshold_b1 = uniforms_b[:, None] * cumulative_bv[:, -1:]
    return torch.searchsorted(cumulative_bv, threshold_b1, right=True)[:, 0]


class SamplingBatch:
    """The rows of one batch. Built when the company changes; `sample` is called once a token.

    Everything per row stands in tensors of shape (b,); what no row asks for costs nothing.
    """

    def __init__(self, rows: Sequence[Row], vocabulary_size: int, device: torch.device | str) -> None:
        settings = [row.settings for row in rows]
        self._rows = list(rows)

        def tensor(values: Sequence[float], dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.tensor(values, dtype=dtype, device=device)

        self._seeds = tensor([row.seed for row in rows], torch.int64)
        self._made = tensor([len(row.generated) for row in rows], torch.int64)
        self._made_list = [len(row.generated) for row in rows]
        self._greedy = tensor([s.greedy for s in settings], torch.bool)
        self._any_greedy = any(s.greedy for s in settings)
        self._all_greedy = all(s.greedy for s in settings)
        self._temperature = tensor([1.0 if s.greedy else s.temperature for s in settings])[:, None]
        self._plain_temperature = all(s.greedy or s.temperature == 1.0 for s in settings)
        self._truncated = any(s.truncated and not s.greedy for s in settings)
        if self._truncated:
            self._top_k = tensor([min(s.top_k, vocabulary_size) for s in settings], torch.int64)
            self._top_p = tensor([s.top_p for s in settings])
            self._min_p = tensor([s.min_p for s in settings])
        self._penalised = any(s.penalised for s in settings)
        if self._penalised:
            self._repetition = tensor([s.repetition_penalty for s in settings])
            self._presence = tensor([s.presence_penalty for s in settings])
            self._frequency = tensor([s.frequency_penalty for s in settings])
            self._seen = torch.zeros(len(rows), vocabulary_size, dtype=torch.bool, device=device)
            self._counts = torch.zeros(len(rows), vocabulary_size, device=device)
            for index, row in enumerate(rows):
                generated = tensor(row.generated, torch.int64)
                self._seen[index, tensor(row.prompt, torch.int64)] = True
                self._seen[index, generated] = True
                self._counts[index] = torch.bincount(generated, minlength=vocabulary_size)
        self._bias: Tensor | None = None
        if any(s.logit_bias for s in settings):
            self._bias = torch.zeros(len(rows), vocabulary_size, device=device)
            for index, setting in enumerate(settings):
                for token, value in setting.logit_bias.items():
                    self._bias[index, token] = value
        self._held_back = [i for i, row in enumerate(rows) if row.stop_ids and row.settings.min_new_tokens]
        self._most_top = max((s.top_logprobs for s in settings), default=0)
        self._indices = torch.arange(len(rows), device=device)

    def processed(self, logits_bv: Tensor) -> Tensor:
        """Steps 1-4 of settings.py on fp32 logits (b, v)."""
        if self._penalised:
            logits_bv = penalise(
                logits_bv,
                self._seen,
                self._counts,
                repetition_b=self._repetition,
                presence_b=self._presence,
                frequency_b=self._frequency,
            )
        if self._bias is not None:
            logits_bv = logits_bv + self._bias
        held_back = [i for i in self._held_back if self._made_list[i] < self._rows[i].settings.min_new_tokens]
        if held_back:
            logits_bv = logits_bv.clone()
            for index in held_back:
                logits_bv[index, list(self._rows[index].stop_ids)] = -torch.inf
        return logits_bv

    def sample(self, logits_bv: Tensor) -> Drawn:
        """Draw the next token of every row from the model's logits (b, v), and count it as generated."""
        logits_bv = logits_bv.float()
        own_bv = logits_bv if self._plain_temperature else logits_bv / self._temperature
        processed_bv = self.processed(logits_bv)
        if self._all_greedy:
            normaliser_b = own_bv.logsumexp(dim=-1)
            tokens_b = processed_bv.argmax(dim=-1)
            peak_b1 = processed_bv.gather(-1, tokens_b[:, None])
        else:
            scaled_bv = own_bv if processed_bv is logits_bv else processed_bv / self._temperature
            peak_b1 = scaled_bv.amax(dim=-1, keepdim=True)
            probabilities_bv = (scaled_bv - peak_b1).exp_()
            if scaled_bv is own_bv:  # the sum of these is the normaliser's
                normaliser_b = probabilities_bv.sum(dim=-1).log_() + peak_b1[:, 0]
            else:
                normaliser_b = own_bv.logsumexp(dim=-1)
            if self._truncated:
                mask_bv = truncation_mask(probabilities_bv, self._top_k, self._top_p, self._min_p)
                probabilities_bv = probabilities_bv * mask_bv
            tokens_b = draw(probabilities_bv, uniforms(self._seeds, self._made))
            if self._any_greedy:
                tokens_b = torch.where(self._greedy, processed_bv.argmax(dim=-1), tokens_b)
        tokens_b = tokens_b.clamp(max=logits_bv.shape[-1] - 1)  # reached only when the logits are not numbers
        logprobs_b = own_bv.gather(-1, tokens_b[:, None])[:, 0] - normaliser_b
        logprobs_b = logprobs_b.where(peak_b1[:, 0].isfinite(), torch.nan)
        self._count(tokens_b)
        top = self._alternatives(own_bv - normaliser_b[:, None]) if self._most_top else None
        return Drawn(tokens_b.tolist(), logprobs_b.tolist(), top)

    def _count(self, tokens_b: Tensor) -> None:
        self._made += 1
        self._made_list = [made + 1 for made in self._made_list]
        if self._penalised:
            self._seen[self._indices, tokens_b] = True
            self._counts[self._indices, tokens_b] += 1

    def _alternatives(self, logprobs_bv: Tensor) -> list[list[tuple[int, float]]]:
        values_bn, ids_bn = logprobs_bv.topk(min(self._most_top, logprobs_bv.shape[-1]), dim=-1)
        pairs = zip(self._rows, ids_bn.tolist(), values_bn.tolist(), strict=True)
        return [list(zip(ids, values, strict=True))[: row.settings.top_logprobs] for row, ids, values in pairs]
