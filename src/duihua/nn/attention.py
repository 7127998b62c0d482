"""Causal self-attention with grouped key-value heads; norms of queries and keys, rotary positions, biases and value
embeddings as the config asks.

Attention(Q, K, V) = softmax(Q K^T / sqrt(e)) V (Vaswani et al. 2017, equation 1); several query heads share one key-value
head (Ainslie et al. 2023), which makes the cache smaller; the norm of queries and keys before the rotation keeps the
scores bounded, so that training bears a high learning rate (Henry et al. 2020; the Qwen3 shape).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from duihua.nn import whole_attention
from duihua.nn.embedding import Embedding
from duihua.nn.fused_attention import fused_attention
from duihua.nn.kv_cache import KVCache
from duihua.nn.norms import RMSNorm
from duihua.nn.positions import rotate
from duihua.nn.products import Linear

QueryKeyNorm = Literal["none", "weighted", "plain"]


@dataclass(frozen=True)
class AttentionPlan:
    """What all layers of one forward share.

    cosine, sine: rotary tables, (t, e) or (b, 1, t, e); None where positions are not rotary. mask: None for plain causal,
    else (b, 1, t, s) booleans, true where a query may look. cache, rows_b, positions_bt, span: see KVCache.write; cache
    None while training. token_ids_bt: for layers with value embeddings. columns_br: of each row the columns that are wanted
    of this layer, None for all; keys and values come from all columns all the same.
    """

    cosine: Tensor | None = None
    sine: Tensor | None = None
    mask: Tensor | None = None
    cache: KVCache | None = None
    rows_b: Tensor | None = None
    positions_bt: Tensor | None = None
    span: int = 0
    token_ids_bt: Tensor | None = None
    columns_br: Tensor | None = None

    def narrowed(self, columns_br: Tensor, time: int) -> AttentionPlan:
        """The plan of a layer of which only some columns are wanted: queries with masks and rotations of their own."""
        if self.mask is None:
            mask = torch.arange(time, device=columns_br.device) <= columns_br[:, None, :, None]  # (b, 1, r, s)
        else:
            mask = columns_of(self.mask[:, 0], columns_br)[:, None]
        return replace(self, mask=mask, columns_br=columns_br)

    def query_table(self, table: Tensor) -> Tensor:
        """Cosines or sines of the queries' places: the table, or its rows for the columns that are wanted, (b, 1, r, e)."""
        if self.columns_br is None:
            return table
        return columns_of(table[None] if table.dim() == 2 else table[:, 0], self.columns_br)[:, None]


def columns_of(x_btd: Tensor, columns_br: Tensor | None) -> Tensor:
    """Of each row the vectors in some columns, (b, r, d); all where None. A first dimension of 1 serves every row."""
    if columns_br is None:
        return x_btd
    rows, time = x_btd.shape[:2]
    if rows > 1:
        columns_br = columns_br + time * torch.arange(rows, device=x_btd.device)[:, None]
    found = x_btd.flatten(0, 1).index_select(0, columns_br.flatten())  # its gradient costs a tenth of an index's
    return found.view(*columns_br.shape, *x_btd.shape[2:])


def columns_where(wanted_bt: Tensor) -> Tensor:
    """Of each row the columns where `wanted_bt` is true, in order, (b, r), r the most that a row has; shorter rows are filled
    up with other columns."""
    most = max(1, int(wanted_bt.sum(dim=1).max()))
    return (~wanted_bt).to(torch.uint8).argsort(dim=1, stable=True)[:, :most]


class CausalSelfAttention(nn.Module):
    """(b, t, width) -> (b, t, width), each position looking at itself and what stands before it; (b, r, width) where the plan
    wants some columns only.

    bias: in all four projections. dropout: share of the attention weights zeroed in training. value_vocabulary: number of
    tokens that have a value vector of their own here; 0 for none.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        key_value_heads: int,
        head_width: int,
        epsilon: float,
        *,
        query_key_norm: QueryKeyNorm = "weighted",
        bias: bool = False,
        dropout: float = 0.0,
        value_vocabulary: int = 0,
    ) -> None:
        super().__init__()
        self.heads, self.key_value_heads, self.head_width = heads, key_value_heads, head_width
        self.query = Linear(width, heads * head_width, bias=bias)
        self.key = Linear(width, key_value_heads * head_width, bias=bias)
        self.value = Linear(width, key_value_heads * head_width, bias=bias)
        self.output = Linear(heads * head_width, width, bias=bias)
        self.query_norm: nn.Module = nn.Identity()
        self.key_norm: nn.Module = nn.Identity()
        if query_key_norm != "none":
            weighted = query_key_norm == "weighted"
            self.query_norm = RMSNorm(head_width, epsilon, weighted)
            self.key_norm = RMSNorm(head_width, epsilon, weighted)
        self.dropout = nn.Dropout(dropout)  # read for its share: the weights themselves never leave the fused kernel
        self.value_embedding: nn.Embedding | None = None
        self.value_gate: nn.Parameter | None = None
        if value_vocabulary:
            self.value_embedding = Embedding(value_vocabulary, key_value_heads * head_width)
            self.value_gate = nn.Parameter(torch.ones(key_value_heads))

    def forward(self, x_btd: Tensor, plan: AttentionPlan, layer: int) -> Tensor:
        batch, time, _ = x_btd.shape
        split = (batch, time, -1, self.head_width)
        wanted = columns_of(x_btd, plan.columns_br)
        split_wanted = (batch, wanted.shape[1], -1, self.head_width)
        query = self.query_norm(self.query(wanted).view(split_wanted)).transpose(1, 2)  # (b, h, t, e)
        key = self.key_norm(self.key(x_btd).view(split)).transpose(1, 2)  # (b, g, t, e)
        value = self.value(x_btd).view(split)
        if self.value_embedding is not None and self.value_gate is not None:
            assert plan.token_ids_bt is not None
            of_token = self.value_embedding(plan.token_ids_bt).view(split) * self.value_gate[:, None]
            value = value + of_token.to(value.dtype)
        value = value.transpose(1, 2)
        if plan.cosine is not None and plan.sine is not None:
            query = rotate(query, plan.query_table(plan.cosine), plan.query_table(plan.sine))
            key = rotate(key, plan.cosine, plan.sine)
        if plan.cache is not None:
            assert plan.positions_bt is not None
            key, value = plan.cache.write(layer, plan.rows_b, plan.positions_bt, key, value, plan.span)
            key, value = key.to(query.dtype), value.to(query.dtype)
        dropout = self.dropout.p if self.training else 0.0
        if whole_attention.fits(query, key, dropout):
            mixed = whole_attention.attend(query, key, value, plan.mask)
        else:
            mixed = fused_attention(query, key, value, plan.mask, dropout, causal=plan.mask is None)
        y: Tensor = self.output(mixed.transpose(1, 2).reshape(batch, wanted.shape[1], self.heads * self.head_width))
        return y
