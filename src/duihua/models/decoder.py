"""The causal language model: embedding, a stack of pre-norm blocks, a final norm, a linear head.

x_0 = embedding(tokens); x <- x + attention(norm(x)); x <- x + feed_forward(norm(x)); logits = head(norm(x_L)).
The shape is Qwen3's (rotary positions, RMSNorm, normed queries and keys, grouped heads, SwiGLU, no biases). One class
serves training and generation: with a cache it computes the new tokens only, and a test holds both ways equal.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from duihua.errors import GenerationError
from duihua.models.config import DecoderConfig
from duihua.nn.attention import AttentionPlan, CausalSelfAttention
from duihua.nn.feed_forward import SwiGLU
from duihua.nn.kv_cache import KVCache
from duihua.nn.norms import RMSNorm
from duihua.nn.positions import rotary_tables


class Block(nn.Module):
    """One layer: attention and feed-forward, each normed before and added to what came in."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width, config.norm_epsilon)
        self.attention = CausalSelfAttention(
            config.width, config.heads, config.key_value_heads, config.head_width, config.norm_epsilon
        )
        self.feed_forward_norm = RMSNorm(config.width, config.norm_epsilon)
        self.feed_forward = SwiGLU(config.width, config.feed_forward_width)

    def forward(self, x_btd: Tensor, plan: AttentionPlan, layer: int) -> Tensor:
        x_btd = x_btd + self.attention(self.attention_norm(x_btd), plan, layer)
        y: Tensor = x_btd + self.feed_forward(self.feed_forward_norm(x_btd))
        return y


class Decoder(nn.Module):
    """Token ids (b, t) -> logits (b, t, v). See docs/design.md for the cache and mask conventions."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary_size, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.final_norm = RMSNorm(config.width, config.norm_epsilon)
        self.head = nn.Linear(config.width, config.vocabulary_size, bias=False)
        if config.tied_embeddings:
            self.head.weight = self.embedding.weight
        cosine, sine = rotary_tables(config.context, config.head_width, config.rope_theta, torch.device("cpu"))
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)
        self.cosine: Tensor
        self.sine: Tensor

    def initialise(self, seed: int) -> Decoder:
        """Fill the weights from a seed of their own, whatever else has drawn random numbers. Returns self.

        Matrices that write into the residual stream start at zero, so that at first every block passes its input on and
        the loss starts at ln(vocabulary size); the others are uniform with standard deviation 1/sqrt(inputs).
        """
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in self.named_parameters():
                if weight.ndim == 1:
                    weight.fill_(1.0)
                elif name == "embedding.weight":
                    weight.copy_(
                        torch.randn(weight.shape, generator=generator) * (0.02 if self.config.tied_embeddings else 0.8)
                    )
                elif name == "head.weight":
                    weight.copy_(torch.randn(weight.shape, generator=generator) * 0.001)
                elif name.endswith(("attention.output.weight", "feed_forward.down.weight")):
                    weight.zero_()
                else:
                    bound = (3.0 / weight.shape[1]) ** 0.5
                    weight.copy_((torch.rand(weight.shape, generator=generator) * 2 - 1) * bound)
        return self

    def new_cache(self, slots: int, capacity: int | None = None) -> KVCache:
        """An empty cache for `slots` sequences of up to `capacity` tokens (default: the model's context)."""
        config, weight = self.config, self.embedding.weight
        return KVCache(
            config.layers,
            slots,
            config.key_value_heads,
            capacity or config.context,
            config.head_width,
            weight.dtype,
            weight.device,
        )

    def hidden(
        self,
        token_ids_bt: Tensor,
        *,
        attention_mask_bt: Tensor | None = None,
        positions_bt: Tensor | None = None,
        segments_bt: Tensor | None = None,
        cache: KVCache | None = None,
        rows_b: Tensor | None = None,
    ) -> Tensor:
        """The vectors after the final norm, (b, t, d): heads and the chunked loss start here.

        attention_mask_bt: 1 for real tokens, 0 for pads on either side. segments_bt: a number for each packed document; a
        token sees its own only. positions_bt: each token's place, needed with a cache. rows_b: the cache slot of each row,
        None for slots 0..b-1. Raises GenerationError when the text is longer than the model's context.
        """
        plan = self._plan(token_ids_bt, attention_mask_bt, positions_bt, segments_bt, cache, rows_b)
        x_btd = self.embedding(token_ids_bt)
        for layer, block in enumerate(self.blocks):
            x_btd = block(x_btd, plan, layer)
        y: Tensor = self.final_norm(x_btd)
        return y

    def forward(
        self,
        token_ids_bt: Tensor,
        *,
        attention_mask_bt: Tensor | None = None,
        positions_bt: Tensor | None = None,
        segments_bt: Tensor | None = None,
        cache: KVCache | None = None,
        rows_b: Tensor | None = None,
    ) -> Tensor:
        """Logits (b, t, v) for the token after each position. The arguments are those of `hidden`."""
        logits: Tensor = self.head(
            self.hidden(
                token_ids_bt,
                attention_mask_bt=attention_mask_bt,
                positions_bt=positions_bt,
                segments_bt=segments_bt,
                cache=cache,
                rows_b=rows_b,
            )
        )
        return logits

    def _plan(
        self,
        token_ids_bt: Tensor,
        attention_mask_bt: Tensor | None,
        positions_bt: Tensor | None,
        segments_bt: Tensor | None,
        cache: KVCache | None,
        rows_b: Tensor | None,
    ) -> AttentionPlan:
        batch, time = token_ids_bt.shape
        device, dtype = token_ids_bt.device, self.embedding.weight.dtype
        if attention_mask_bt is not None and positions_bt is None:
            positions_bt = (attention_mask_bt.long().cumsum(dim=1) - 1).clamp(min=0)
        if cache is not None and positions_bt is None:
            positions_bt = torch.arange(time, device=device).expand(batch, time)
        longest = time if positions_bt is None else int(positions_bt.max()) + 1
        limit = self.config.context if cache is None else min(self.config.context, cache.capacity)
        if longest > limit:
            raise GenerationError(
                f"{longest} tokens are longer than the context of {limit}",
                remedy="Shorten the text or use a model with a longer context",
            )
        if positions_bt is None:
            cosine, sine = self.cosine[:time], self.sine[:time]
        else:
            cosine, sine = self.cosine[positions_bt][:, None], self.sine[positions_bt][:, None]  # (b, 1, t, e)
        cosine, sine = cosine.to(dtype), sine.to(dtype)
        if cache is not None:
            assert positions_bt is not None
            places = torch.arange(longest, device=device)
            mask = places[None, None, None, :] <= positions_bt[:, None, :, None]  # (b, 1, t, s)
            return AttentionPlan(cosine, sine, mask, cache, rows_b, positions_bt, longest)
        if attention_mask_bt is None and segments_bt is None:
            return AttentionPlan(cosine, sine)
        order = torch.arange(time, device=device)
        mask = (order[None, :] <= order[:, None])[None, None]  # (1, 1, t, s)
        if segments_bt is not None:
            mask = mask & (segments_bt[:, None, :, None] == segments_bt[:, None, None, :])
        if attention_mask_bt is not None:
            # A pad may look at itself, so that no row of the softmax is empty; no real token looks at a pad.
            itself = (order[None, :] == order[:, None])[None, None]
            mask = mask & (attention_mask_bt.bool()[:, None, None, :] | itself)
        return AttentionPlan(cosine, sine, mask)


def parameter_count(network: nn.Module) -> int:
    """Number of distinct parameters; a tied matrix counts once."""
    return sum(weight.numel() for weight in network.parameters())
