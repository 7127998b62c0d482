"""The causal language model: embedding, a stack of blocks, a norm, a linear head, in every variant of the config.

x_0 = embedding(tokens); x <- x + attention(norm(x)); x <- x + feed_forward(norm(x)); logits = head(norm(x_L)); with norms
behind the addition (GPT-1) it is x <- norm(x + attention(x)) instead. The default is Qwen3's shape (rotary positions,
RMSNorm, normed queries and keys, grouped heads, SwiGLU, no biases). Each choice is one field of models/config.py, which
says where it comes from. One class serves training and generation: with a cache it computes the new tokens only, and a
test holds both ways equal.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from duihua.errors import GenerationError
from duihua.models import initialisation
from duihua.models.config import DecoderConfig
from duihua.models.rotary import fixed_tables, grown_tables, original_context
from duihua.nn.attention import AttentionPlan, CausalSelfAttention, columns_of
from duihua.nn.embedding import Embedding
from duihua.nn.feed_forward import FeedForward
from duihua.nn.head_log_probabilities import TokenReadings, head_log_probabilities, head_readings
from duihua.nn.kv_cache import KVCache
from duihua.nn.losses import cap_logits, cross_entropy_sum
from duihua.nn.norms import make_norm
from duihua.nn.positions import sinusoidal_table
from duihua.nn.products import Linear


class Block(nn.Module):
    """One layer: attention and feed-forward, each normed before (or after) and added to what came in."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.norm_after = config.norm_place == "post"
        self.attention_norm = make_norm(config.norm, config.width, config.norm_epsilon)
        self.attention = CausalSelfAttention(
            config.width,
            config.heads,
            config.key_value_heads,
            config.head_width,
            config.norm_epsilon,
            query_key_norm=config.query_key_norm,
            bias=config.attention_bias,
            dropout=config.attention_dropout,
            value_vocabulary=config.vocabulary_size if has_value_embedding(config, layer) else 0,
        )
        self.feed_forward_norm = make_norm(config.norm, config.width, config.norm_epsilon)
        self.feed_forward = FeedForward(
            config.width, config.feed_forward_width, config.activation, config.gated, config.feed_forward_bias
        )
        self.dropout = nn.Dropout(config.residual_dropout)
        self.residual_scalars = nn.Parameter(torch.tensor([1.0, 0.0])) if config.residual_scalars else None

    def forward(self, x_btd: Tensor, plan: AttentionPlan, layer: int, embedded_btd: Tensor) -> Tensor:
        """(b, t, d), or (b, r, d) where the plan wants some columns only. embedded_btd: what the first block got, for the
        residual scalars."""
        if self.residual_scalars is not None:
            x_btd = self.residual_scalars[0] * x_btd + self.residual_scalars[1] * embedded_btd
        kept_btd = columns_of(x_btd, plan.columns_br)
        if self.norm_after:
            x_btd = self.attention_norm(kept_btd + self._dropped(self.attention(x_btd, plan, layer)))
            y_btd: Tensor = self.feed_forward_norm(x_btd + self._dropped(self.feed_forward(x_btd)))
        else:
            x_btd = kept_btd + self._dropped(self.attention(self.attention_norm(x_btd), plan, layer))
            y_btd = x_btd + self._dropped(self.feed_forward(self.feed_forward_norm(x_btd)))
        return y_btd

    def _dropped(self, x_btd: Tensor) -> Tensor:
        if not self.training:  # a call that does nothing is felt when one token is written at a time
            return x_btd
        y_btd: Tensor = self.dropout(x_btd)
        return y_btd


class Decoder(nn.Module):
    """Token ids (b, t) -> logits (b, t, v). See docs/design.md for the cache and mask conventions.

    gradient_checkpointing: when true, training keeps only what enters each block and computes the block again in the
    backward pass: about a third more work, and memory for one block's activations instead of all (Chen et al. 2016).
    compiled_blocks: what training calls instead of the blocks, with the same weights; empty for the blocks themselves.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self.compiled_blocks: list[Callable[..., Tensor]] = []
        self.embedding = Embedding(config.vocabulary_size, config.width)
        learned = config.positions == "learned"
        self.position_embedding = Embedding(config.context, config.width) if learned else None
        self.embedding_dropout = nn.Dropout(config.embedding_dropout)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.final_norm = (
            make_norm(config.norm, config.width, config.norm_epsilon) if config.final_norm else nn.Identity()
        )
        self.head = Linear(config.width, config.vocabulary_size, bias=False)
        if config.tied_embeddings:
            self.head.weight = self.embedding.weight
        device = torch.device("cpu")  # whatever the default is: tables follow from the config, not from a file
        cosine, sine = fixed_tables(config, device) if config.positions == "rotary" else (None, None)
        sinusoids = sinusoidal_table(config.context, config.width, device) if config.positions == "sinusoidal" else None
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)
        self.register_buffer("sinusoids", sinusoids, persistent=False)
        self.cosine: Tensor | None
        self.sine: Tensor | None
        self.sinusoids: Tensor | None

    def initialise(self, seed: int) -> Decoder:
        """Fill the weights as the config's `initialisation` says, from a seed of their own. Returns self."""
        initialisation.initialise(self, self.config, seed)
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
        columns_br: Tensor | None = None,
    ) -> Tensor:
        """The vectors after the final norm, (b, t, d): `logits`, `next_token_losses` and other heads start here.

        columns_br: of each row the columns whose vectors are wanted; the result is (b, r, d), and what the last block would
        have computed for the others, but for their keys and values, is spared.

        attention_mask_bt: 1 for real tokens, 0 for pads on either side; or (b, t, s) booleans, true where the token at t
        may look at the one at s, for texts that branch (then positions_bt is needed, and nobody looks ahead). segments_bt:
        a number for each packed document; a token sees its own only. positions_bt: each token's place, needed with a cache.
        rows_b: the cache slot of each row, None for slots 0..b-1. Raises GenerationError when the text is longer than the
        model's context.
        """
        plan = self._plan(token_ids_bt, attention_mask_bt, positions_bt, segments_bt, cache, rows_b)
        x_btd = self._embed(token_ids_bt, plan.positions_bt)
        if self.training:
            x_btd = self.embedding_dropout(x_btd)
        embedded_btd = x_btd
        compiled = bool(self.compiled_blocks) and self.training and cache is None
        blocks: list[Callable[..., Tensor]] = self.compiled_blocks if compiled else list(self.blocks)
        if columns_br is not None:
            blocks = [*blocks[:-1], self.blocks[-1]]  # of other sizes in each batch: nothing to compile
        for layer, block in enumerate(blocks):
            if columns_br is not None and layer == len(blocks) - 1:
                plan = plan.narrowed(columns_br, token_ids_bt.shape[1])
            if self.gradient_checkpointing and self.training and cache is None and torch.is_grad_enabled():
                x_btd = checkpoint(block, x_btd, plan, layer, embedded_btd, use_reentrant=False)
            else:
                x_btd = block(x_btd, plan, layer, embedded_btd)
        y: Tensor = self.final_norm(x_btd)
        return y

    def logits(self, hidden: Tensor) -> Tensor:
        """What `hidden` gave, (..., d), as logits (..., v), capped where the config says so (then in fp32)."""
        logits: Tensor = self.head(hidden)
        cap = self.config.logit_soft_cap
        return cap_logits(logits.float(), cap) if cap else logits

    def next_token_losses(self, hidden: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted sum of the cross-entropies of this decoder's logits, and the loss of each position, without ever
        holding all logits: see `cross_entropy_sum`. hidden (..., d), targets and weights (...)."""
        return cross_entropy_sum(hidden, self.head.weight, targets, weights, soft_cap=self.config.logit_soft_cap)

    def log_probabilities(self, hidden: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
        """log p(target) at the temperature, (n,) in fp32: see `head_log_probabilities`. hidden (n, d), targets (n,)."""
        return head_log_probabilities(hidden, self.head.weight, targets, temperature, self.config.logit_soft_cap)

    def readings(self, hidden: Tensor, targets: Tensor, temperature: float = 1.0) -> TokenReadings:
        """The same numbers and the entropies, without gradients."""
        return head_readings(hidden, self.head.weight, targets, temperature, self.config.logit_soft_cap)

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
        return self.logits(
            self.hidden(
                token_ids_bt,
                attention_mask_bt=attention_mask_bt,
                positions_bt=positions_bt,
                segments_bt=segments_bt,
                cache=cache,
                rows_b=rows_b,
            )
        )

    def _embed(self, token_ids_bt: Tensor, positions_bt: Tensor | None) -> Tensor:
        """Vectors of the tokens, plus those of their places where places are told apart by addition: (b, t, d)."""
        x_btd: Tensor = self.embedding(token_ids_bt)
        table = self.sinusoids if self.position_embedding is None else self.position_embedding.weight
        if table is None:
            return x_btd
        if positions_bt is None:
            return x_btd + table[: token_ids_bt.shape[1]].to(x_btd.dtype)
        return x_btd + nn.functional.embedding(positions_bt, table).to(x_btd.dtype)

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
        device = token_ids_bt.device
        if attention_mask_bt is not None and attention_mask_bt.dim() == 3:
            assert positions_bt is not None and segments_bt is None and cache is None
        elif attention_mask_bt is not None and positions_bt is None:
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
        cosine, sine = self._rotation(token_ids_bt, positions_bt, longest)
        if cache is not None:
            assert positions_bt is not None
            places = torch.arange(longest, device=device)
            mask = places[None, None, None, :] <= positions_bt[:, None, :, None]  # (b, 1, t, s)
            return AttentionPlan(cosine, sine, mask, cache, rows_b, positions_bt, longest, token_ids_bt)
        if attention_mask_bt is None and segments_bt is None:
            return AttentionPlan(cosine, sine, positions_bt=positions_bt, token_ids_bt=token_ids_bt)
        order = torch.arange(time, device=device)
        mask = (order[None, :] <= order[:, None])[None, None]  # (1, 1, t, s)
        if segments_bt is not None:
            mask = mask & (segments_bt[:, None, :, None] == segments_bt[:, None, None, :])
        if attention_mask_bt is not None and attention_mask_bt.dim() == 3:
            mask = mask & attention_mask_bt[:, None]
        elif attention_mask_bt is not None:
            # A pad may look at itself, so that no row of the softmax is empty; no real token looks at a pad.
            itself = (order[None, :] == order[:, None])[None, None]
            mask = mask & (attention_mask_bt.bool()[:, None, None, :] | itself)
        return AttentionPlan(cosine, sine, mask, positions_bt=positions_bt, token_ids_bt=token_ids_bt)

    def _rotation(
        self, token_ids_bt: Tensor, positions_bt: Tensor | None, longest: int
    ) -> tuple[Tensor | None, Tensor | None]:
        """Cosines and sines of the tokens' places, (t, e) or (b, 1, t, e); None where positions are not rotary."""
        if self.cosine is None or self.sine is None:
            return None, None
        dtype = self.embedding.weight.dtype
        if longest > original_context(self.config):
            if positions_bt is None:
                positions_bt = torch.arange(longest, device=token_ids_bt.device)[None]
            cosine, sine = grown_tables(self.config, positions_bt)
            return cosine[:, None].to(dtype), sine[:, None].to(dtype)
        if positions_bt is None:
            time = token_ids_bt.shape[1]
            return self.cosine[:time].to(dtype), self.sine[:time].to(dtype)
        return self.cosine[positions_bt][:, None].to(dtype), self.sine[positions_bt][:, None].to(dtype)


def has_value_embedding(config: DecoderConfig, layer: int) -> bool:
    """Whether a layer has value embeddings: every second one, counted so that the last has them."""
    return config.value_embeddings and layer % 2 == (config.layers - 1) % 2


def parameter_count(network: nn.Module) -> int:
    """Number of distinct parameters; a tied matrix counts once."""
    return sum(weight.numel() for weight in network.parameters())


def parameter_names(config: DecoderConfig) -> list[str]:
    """The names of a decoder's parameters in the order of the forward pass; no memory is taken for them."""
    with torch.device("meta"):
        return [name for name, _ in Decoder(config).named_parameters()]
