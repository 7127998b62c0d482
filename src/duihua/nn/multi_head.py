"""Multi-head attention of the encoder-decoder Transformer: of a sequence to itself, and of the target to the source.

MultiHead(Q, K, V) = [head_1 ... head_h] W_O with head_i = softmax(Q_i K_i^T / sqrt(e)) V_i (Vaswani et al. 2017, section
3.2.2). Why not nn/attention.py's class: that one is GPT's, causal, with rotary positions and shared key-value heads, none
of which the encoder-decoder has; here queries may come from another sequence than keys and values, and the projections
that read the same input are one matrix, which is one large product instead of three. The weights leave the fused kernel
on request only: they are then worked out beside it, and the output stays what it was.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from duihua.nn.fused_attention import fused_attention
from duihua.nn.products import Linear

GROWTH = 32
"""Tokens that a new cache has room for; it doubles when it is full."""


class SelfAttention(nn.Module):
    """(b, t, width) -> (b, t, width): every position looks at all others, or only back. bias: in all projections. dropout:
    share of the attention weights that is zeroed in training."""

    def __init__(self, width: int, heads: int, bias: bool, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query_key_value = Linear(width, 3 * width, bias=bias)
        self.output = Linear(width, width, bias=bias)

    def forward(
        self, x_btd: Tensor, mask: Tensor | None = None, causal: bool = False, record: list[Tensor] | None = None
    ) -> Tensor:
        """mask: true where a query may look, broadcastable to (b, h, t, s). causal: no position sees what follows it; not
        together with a mask. record: gets the weights (b, h, t, s)."""
        batch, time, width = x_btd.shape
        split = self.query_key_value(x_btd).view(batch, time, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)  # (b, h, t, e) each
        y: Tensor = self.output(_attend(query, key, value, mask, causal, self._dropout, record))
        return y

    def step(self, x_rd: Tensor, cache: StepCache, layer: int) -> Tensor:
        """One token more in each row, (rows, width) -> (rows, width). Its key and value are added to the cache."""
        rows, width = x_rd.shape
        all_rk = self.query_key_value(x_rd)
        query = all_rk[:, :width].view(rows, 1, self.heads, -1).transpose(1, 2)
        key, value = cache.write(layer, all_rk[:, width:], self.heads)
        y: Tensor = self.output(_attend(query, key, value, None, False, 0.0, None))
        return y[:, 0]

    @property
    def _dropout(self) -> float:
        return self.dropout if self.training else 0.0


class CrossAttention(nn.Module):
    """The target looks at the source: (b, t, width) and the source's keys and values -> (b, t, width)."""

    def __init__(self, width: int, heads: int, bias: bool, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = Linear(width, width, bias=bias)
        self.key_value = Linear(width, 2 * width, bias=bias)
        self.output = Linear(width, width, bias=bias)

    def keys_values(self, memory_bsd: Tensor) -> tuple[Tensor, Tensor]:
        """The source's keys and values, (b, h, s, e) each: worked out once, however many tokens are written."""
        batch, source, width = memory_bsd.shape
        split = self.key_value(memory_bsd).view(batch, source, 2, self.heads, width // self.heads)
        key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        return key, value

    def forward(
        self,
        x_btd: Tensor,
        keys_values: tuple[Tensor, Tensor],
        mask: Tensor | None = None,
        record: list[Tensor] | None = None,
    ) -> Tensor:
        """keys_values: of `keys_values`. mask: true for the source's real tokens, (b, 1, 1, s). record: gets the weights (b,
        h, t, s). The t positions need not be places of one text: in beam search they are the hypotheses of a sentence."""
        batch, time, _ = x_btd.shape
        query = self.query(x_btd).view(batch, time, self.heads, -1).transpose(1, 2)
        dropout = self.dropout if self.training else 0.0
        y: Tensor = self.output(_attend(query, *keys_values, mask, False, dropout, record))
        return y


class StepCache:
    """Keys and values of what each row has written so far, of all layers, growing in place.

    One tensor (rows, capacity, layers, 2 width): a row's past lies together, so that a hypothesis which takes another's place
    in beam search copies one stretch of memory.
    """

    def __init__(self, rows: int, layers: int, width: int, most_tokens: int, like: Tensor) -> None:
        self.length, self.most_tokens = 0, most_tokens
        self._stored = like.new_empty(rows, min(GROWTH, most_tokens), layers, 2 * width)

    @property
    def rows(self) -> int:
        return self._stored.shape[0]

    def write(self, layer: int, key_value_rk: Tensor, heads: int) -> tuple[Tensor, Tensor]:
        """Store one token's key and value (rows, 2 width) of a layer; give back all so far, two views (rows, h, t, e)."""
        if self.length == self._stored.shape[1]:
            grown = min(2 * self.length, self.most_tokens)
            rows, _, layers, both = self._stored.shape
            larger = self._stored.new_empty(rows, grown, layers, both)
            larger[:, : self.length] = self._stored
            self._stored = larger
        self._stored[:, self.length, layer] = key_value_rk.to(self._stored.dtype)
        past = self._stored[:, : self.length + 1, layer]
        split = past.view(*past.shape[:2], 2, heads, -1).permute(2, 0, 3, 1, 4)
        return split[0].to(key_value_rk.dtype), split[1].to(key_value_rk.dtype)

    def advance(self) -> None:
        """All layers have stored the token."""
        self.length += 1

    def reorder(self, rows_r: Tensor) -> None:
        """Row i becomes what row rows_r[i] was; rows that stay are not touched."""
        count = rows_r.shape[0]
        moved = (rows_r != torch.arange(count, device=rows_r.device)).nonzero()[:, 0]
        if len(moved):
            self._stored[moved, : self.length] = self._stored[rows_r[moved], : self.length]
        self._stored = self._stored[:count]


def attention_weights(query: Tensor, key: Tensor, mask: Tensor | None, causal: bool = False) -> Tensor:
    """softmax(Q K^T / sqrt(e)), (b, h, t, s): each row sums to 1, and is exactly 0 where the mask is false; a row that may see
    nothing is 0 throughout, not NaN."""
    scores = (query @ key.transpose(-1, -2)).float() * query.shape[-1] ** -0.5
    seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
    seen = seen.tril() if causal else seen
    seen = seen if mask is None else seen & mask
    weights: Tensor = scores.masked_fill(~seen, -torch.inf).softmax(dim=-1).masked_fill(~seen, 0.0)
    return weights


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    causal: bool,
    dropout: float,
    record: list[Tensor] | None,
) -> Tensor:
    """The heads' results side by side, (b, t, h e)."""
    if record is not None:
        record.append(attention_weights(query, key, mask, causal))
    mixed = fused_attention(query, key, value, mask, dropout, causal)
    y: Tensor = mixed.transpose(1, 2).flatten(2)
    return y
