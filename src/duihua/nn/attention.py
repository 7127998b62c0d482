"""Causal self-attention with grouped key-value heads, normed queries and keys, and rotary positions.

Attention(Q, K, V) = softmax(Q K^T / sqrt(e)) V (Vaswani et al. 2017, equation 1); several query heads share one key-value
head (Ainslie et al. 2023), which makes the cache smaller; the norm of queries and keys before the rotation keeps the
scores bounded, so that training bears a high learning rate (Henry et al. 2020; the Qwen3 shape).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from duihua.nn.kv_cache import KVCache
from duihua.nn.norms import RMSNorm
from duihua.nn.positions import rotate


@dataclass(frozen=True)
class AttentionPlan:
    """What all layers of one forward share.

    cosine, sine: rotary tables, (t, e) or (b, 1, t, e). mask: None for plain causal, else (b, 1, t, s) booleans, true
    where a query may look. cache, rows_b, positions_bt, span: see KVCache.write; cache None while training.
    """

    cosine: Tensor
    sine: Tensor
    mask: Tensor | None = None
    cache: KVCache | None = None
    rows_b: Tensor | None = None
    positions_bt: Tensor | None = None
    span: int = 0


class CausalSelfAttention(nn.Module):
    """(b, t, width) -> (b, t, width), each position looking at itself and what stands before it."""

    def __init__(self, width: int, heads: int, key_value_heads: int, head_width: int, epsilon: float) -> None:
        super().__init__()
        self.heads, self.key_value_heads, self.head_width = heads, key_value_heads, head_width
        self.query = nn.Linear(width, heads * head_width, bias=False)
        self.key = nn.Linear(width, key_value_heads * head_width, bias=False)
        self.value = nn.Linear(width, key_value_heads * head_width, bias=False)
        self.output = nn.Linear(heads * head_width, width, bias=False)
        self.query_norm = RMSNorm(head_width, epsilon)
        self.key_norm = RMSNorm(head_width, epsilon)

    def forward(self, x_btd: Tensor, plan: AttentionPlan, layer: int) -> Tensor:
        batch, time, _ = x_btd.shape
        split = (batch, time, -1, self.head_width)
        query = self.query_norm(self.query(x_btd).view(split)).transpose(1, 2)  # (b, h, t, e)
        key = self.key_norm(self.key(x_btd).view(split)).transpose(1, 2)  # (b, g, t, e)
        value = self.value(x_btd).view(split).transpose(1, 2)
        query = rotate(query, plan.cosine, plan.sine)
        key = rotate(key, plan.cosine, plan.sine)
        if plan.cache is not None:
            assert plan.positions_bt is not None
            key, value = plan.cache.write(layer, plan.rows_b, plan.positions_bt, key, value, plan.span)
            key, value = key.to(query.dtype), value.to(query.dtype)
        mixed = nn.functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=plan.mask,
            is_causal=plan.mask is None,
            enable_gqa=self.heads != self.key_value_heads,
        )
        y: Tensor = self.output(mixed.transpose(1, 2).reshape(batch, time, self.heads * self.head_width))
        return y
