"""The encoder-decoder Transformer of "Attention Is All You Need" (Vaswani et al. 2017), for translation.

The encoder reads the source, every position looking at every other; the decoder writes the target, each position looking
back at the target and across at the source. An encoder block is attention and feed-forward; a decoder block has a cross
attention between them, which is the one part that GPT drops when it keeps the decoder alone. Each choice is one field of
models/transformer_config.py. The contract is that of models/translator.py: training scores a whole target in one pass
without a loop, translation writes a token at a time with what was computed before in a cache, and tests hold both equal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from duihua.models.transformer_config import TransformerConfig
from duihua.models.translator import DecodingState, Memory, check_length, moved_rows
from duihua.nn.embedding import Embedding
from duihua.nn.feed_forward import FeedForward
from duihua.nn.losses import cross_entropy_sum
from duihua.nn.multi_head import CrossAttention, SelfAttention, StepCache
from duihua.nn.norms import LayerNorm
from duihua.nn.positions import sinusoidal_halves_table, sinusoidal_table
from duihua.nn.products import Linear

KeysValues = tuple[Tensor, Tensor]


class TransformerBlock(nn.Module):
    """A block of the encoder, or with `cross` of the decoder."""

    def __init__(self, config: TransformerConfig, cross: bool) -> None:
        super().__init__()
        width, epsilon = config.width, config.norm_epsilon
        shape = (width, config.heads, config.attention_bias, config.attention_dropout)
        self.norm_after = config.norm_place == "post"
        self.attention_norm = LayerNorm(width, epsilon)
        self.attention = SelfAttention(*shape)
        self.cross_attention_norm = LayerNorm(width, epsilon) if cross else None
        self.cross_attention = CrossAttention(*shape) if cross else None
        self.feed_forward_norm = LayerNorm(width, epsilon)
        self.feed_forward = FeedForward(
            width,
            config.feed_forward_width,
            config.activation,
            gated=False,
            bias=config.feed_forward_bias,
            dropout=config.activation_dropout,
        )
        self.dropout = config.dropout

    def forward(
        self,
        x_btd: Tensor,
        mask: Tensor | None = None,
        causal: bool = False,
        source: KeysValues | None = None,
        source_mask: Tensor | None = None,
        record: list[Tensor] | None = None,
    ) -> Tensor:
        """(b, t, d) -> (b, t, d). mask, causal: of the attention to itself. source, source_mask: keys and values of what a
        decoder block looks at. record: gets the weights of each attention (b, h, t, s)."""
        y_btd = self.attention(self._before(self.attention_norm, x_btd), mask, causal, record)
        x_btd = self._added(self.attention_norm, x_btd, y_btd)
        if self.cross_attention is not None and self.cross_attention_norm is not None:
            assert source is not None
            query_btd = self._before(self.cross_attention_norm, x_btd)
            y_btd = self.cross_attention(query_btd, source, source_mask, record)
            x_btd = self._added(self.cross_attention_norm, x_btd, y_btd)
        y_btd = self.feed_forward(self._before(self.feed_forward_norm, x_btd))
        return self._added(self.feed_forward_norm, x_btd, y_btd)

    def keys_values(self, memory_bsd: Tensor) -> KeysValues:
        """Of the source, for the cross attention of a decoder block."""
        assert self.cross_attention is not None
        return self.cross_attention.keys_values(memory_bsd)

    def step(
        self, x_rd: Tensor, cache: StepCache, layer: int, state: TransformerState, record: list[Tensor] | None
    ) -> Tensor:
        """One token more a row, (rows, d) -> (rows, d), of a decoder block."""
        assert self.cross_attention is not None and self.cross_attention_norm is not None
        y_rd = self.attention.step(self._before(self.attention_norm, x_rd), cache, layer)
        x_rd = self._added(self.attention_norm, x_rd, y_rd)
        query_rd = self._before(self.cross_attention_norm, x_rd)
        grouped_bkd = query_rd.view(-1, state.beams, query_rd.shape[-1])
        y_bkd = self.cross_attention(grouped_bkd, state.sources[layer], state.source_mask, record)
        x_rd = self._added(self.cross_attention_norm, x_rd, y_bkd.view_as(x_rd))
        y_rd = self.feed_forward(self._before(self.feed_forward_norm, x_rd))
        return self._added(self.feed_forward_norm, x_rd, y_rd)

    def _before(self, norm: nn.Module, x: Tensor) -> Tensor:
        """What a sub-layer reads: x, or norm(x) where the norms stand before."""
        y: Tensor = x if self.norm_after else norm(x)
        return y

    def _added(self, norm: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """A sub-layer's result y added to x: norm(x + y), or x + y where the norms stand before."""
        if self.training and self.dropout:
            y = nn.functional.dropout(y, self.dropout)
        z: Tensor = norm(x + y) if self.norm_after else x + y
        return z


class TransformerState:
    """The decoder between two steps: see `DecodingState`.

    sources: each layer's keys and values of the source, once a sentence. cache: those of the target so far, once a row.
    """

    def __init__(
        self, sources: list[KeysValues], source_mask: Tensor | None, cache: StepCache, beams: int, watch: bool
    ):
        self.sources, self.source_mask, self.cache, self.beams, self.watch = sources, source_mask, cache, beams, watch
        self.attention_rs: Tensor | None = None

    @property
    def rows(self) -> int:
        return self.cache.rows

    def reorder(self, rows_r: Tensor) -> None:
        sentences, rows = moved_rows(rows_r, self.beams, self.rows)
        if sentences is not None:
            self.sources = [(key[sentences], value[sentences]) for key, value in self.sources]
            self.source_mask = None if self.source_mask is None else self.source_mask[sentences]
        if rows is not None:
            self.cache.reorder(rows)
            self.attention_rs = None if self.attention_rs is None else self.attention_rs[rows]


class Transformer(nn.Module):
    """Source (b, s) and target (b, t) -> logits (b, t, v). See models/translator.py for the contract."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        assert config.vocabulary_size, "the stage sets the vocabulary's size"
        self.config = config
        size, width, tied = config.vocabulary_size, config.width, config.tied_embeddings
        self.target_embedding = Embedding(size, width)
        self.source_embedding = self.target_embedding if tied == "all" else Embedding(size, width)
        learned = config.positions == "learned"
        self.source_positions = Embedding(config.most_tokens, width) if learned else None
        self.target_positions = Embedding(config.most_tokens, width) if learned else None
        self.encoder = nn.ModuleList(TransformerBlock(config, cross=False) for _ in range(config.encoder_layers))
        self.decoder = nn.ModuleList(TransformerBlock(config, cross=True) for _ in range(config.decoder_layers))
        final = config.has_final_norms
        self.encoder_norm = LayerNorm(width, config.norm_epsilon) if final else nn.Identity()
        self.decoder_norm = LayerNorm(width, config.norm_epsilon) if final else nn.Identity()
        self.head = Linear(width, size, bias=config.output_bias)
        if tied != "none":
            self.head.weight = self.target_embedding.weight
        device = torch.device("cpu")  # whatever the default is: the table follows from the config, not from a file
        tables = {"sinusoidal": sinusoidal_table, "sinusoidal_halves": sinusoidal_halves_table}
        table = tables.get(config.positions)
        self.register_buffer("sinusoids", table and table(config.most_tokens, width, device), persistent=False)
        self.sinusoids: Tensor | None
        self.embedding_scale = math.sqrt(width) if config.scaled_embeddings else 1.0

    def initialise(self, seed: int) -> Transformer:
        """Fill the weights from a seed of their own. Returns self.

        Matrices by Glorot's uniform rule, taken over each fused matrix as a whole, as nn.MultiheadAttention does; embeddings
        N(0, 1/width), so that both the scaled input and the first logits have a variance of about one (tensor2tensor and
        fairseq do so); norms one, biases zero.
        """
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in self.named_parameters():
                if name.endswith(".bias"):
                    weight.zero_()
                elif weight.ndim == 1:
                    weight.fill_(1.0)
                elif "embedding" in name or "positions" in name or name == "head.weight":
                    deviation = 0.02 if "positions" in name else self.config.width**-0.5
                    weight.copy_(torch.randn(weight.shape, generator=generator) * deviation)
                else:
                    bound = math.sqrt(6.0 / sum(weight.shape))
                    weight.copy_((torch.rand(weight.shape, generator=generator) * 2 - 1) * bound)
        return self

    # -- a whole target in one pass -----------------------------------------------------------------------------------

    def encode(self, source_bs: Tensor, source_mask_bs: Tensor, record: list[Tensor] | None = None) -> Memory:
        """What the decoder reads. record: gets each layer's weights (b, h, s, s)."""
        check_length(source_bs.shape[1], self.config, "source")
        mask_bs = source_mask_bs.bool()
        x_bsd = self._embed(source_bs, self.source_embedding, self.source_positions, 0)
        mask = _attention_mask(mask_bs)
        for block in self.encoder:
            x_bsd = block(x_bsd, mask, record=record)
        return Memory(self.encoder_norm(x_bsd), mask_bs)

    def decode(self, memory: Memory, target_bt: Tensor, record: list[Tensor] | None = None) -> Tensor:
        """The vectors before the output layer, (b, t, d). record: gets, layer by layer, the weights of the attention to the
        target (b, h, t, t) and of the attention to the source (b, h, t, s)."""
        check_length(target_bt.shape[1], self.config, "target")
        x_btd = self._embed(target_bt, self.target_embedding, self.target_positions, 0)
        source_mask = _attention_mask(memory.mask_bs)
        for block in self._decoder_blocks():
            source = block.keys_values(memory.states_bsd)
            x_btd = block(x_btd, None, True, source, source_mask, record)
        y_btd: Tensor = self.decoder_norm(x_btd)
        return y_btd

    def hidden(self, source_bs: Tensor, source_mask_bs: Tensor, target_bt: Tensor) -> Tensor:
        """The vectors before the output layer, (b, t, d): `logits` and `next_token_losses` start here."""
        return self.decode(self.encode(source_bs, source_mask_bs), target_bt)

    def logits(self, hidden: Tensor) -> Tensor:
        """What `hidden` gave, (..., d), as logits (..., v)."""
        logits: Tensor = self.head(hidden)
        return logits

    def next_token_losses(
        self, hidden: Tensor, targets: Tensor, weights: Tensor, smoothing: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """See `Translator`: the logits are never held all at once, except where they have a bias."""
        if not self.config.output_bias:
            return cross_entropy_sum(hidden, self.head.weight, targets, weights, smoothing=smoothing)
        logits, flat = self.logits(hidden).flatten(0, -2).float(), targets.flatten()
        smoothed = nn.functional.cross_entropy(logits, flat, reduction="none", label_smoothing=smoothing)
        with torch.no_grad():
            plain = nn.functional.cross_entropy(logits, flat, reduction="none").view(targets.shape)
        return (smoothed * weights.flatten()).sum(), plain.masked_fill(weights == 0, 0.0)

    def forward(self, source_bs: Tensor, source_mask_bs: Tensor, target_bt: Tensor) -> Tensor:
        """Logits (b, t, v) for the token after each position of the target, which starts with start_id."""
        return self.logits(self.hidden(source_bs, source_mask_bs, target_bt))

    def attention(self, source_bs: Tensor, source_mask_bs: Tensor, target_bt: Tensor) -> list[Tensor]:
        """Weights of the target over the source, (b, h, t, s) a decoder layer."""
        record: list[Tensor] = []
        self.decode(self.encode(source_bs, source_mask_bs), target_bt, record)
        return record[1::2]

    def _decoder_blocks(self) -> Iterator[TransformerBlock]:
        for block in self.decoder:
            assert isinstance(block, TransformerBlock)
            yield block

    def _embed(self, ids_bt: Tensor, embedding: nn.Embedding, positions: nn.Embedding | None, first: int) -> Tensor:
        """The scaled vectors of tokens plus those of their places, from place `first` on."""
        x_btd: Tensor = embedding(ids_bt) * self.embedding_scale
        table = self.sinusoids if positions is None else positions.weight
        if table is not None:
            x_btd = x_btd + table[first : first + ids_bt.shape[-1]].to(x_btd.dtype)
        if self.training and self.config.dropout:
            x_btd = nn.functional.dropout(x_btd, self.config.dropout)
        return x_btd

    # -- a token at a time --------------------------------------------------------------------------------------------

    def start(self, memory: Memory, beams: int = 1, watch: bool = False) -> TransformerState:
        """A state of b * beams rows that has read nothing; the source's keys and values are worked out here, once."""
        sources = [block.keys_values(memory.states_bsd) for block in self._decoder_blocks()]
        config, rows = self.config, memory.states_bsd.shape[0] * beams
        cache = StepCache(rows, config.decoder_layers, config.width, config.most_tokens, memory.states_bsd)
        return TransformerState(sources, _attention_mask(memory.mask_bs), cache, beams, watch)

    def step(self, ids_r: Tensor, state: DecodingState) -> Tensor:
        """Logits (rows, v) after one token more a row."""
        assert isinstance(state, TransformerState)
        cache = state.cache
        check_length(cache.length + 1, self.config, "target")
        x_rd = self._embed(ids_r[:, None], self.target_embedding, self.target_positions, cache.length)[:, 0]
        record: list[Tensor] = []
        for layer, block in enumerate(self._decoder_blocks()):
            last = state.watch and layer == len(self.decoder) - 1
            x_rd = block.step(x_rd, cache, layer, state, record if last else None)
        cache.advance()
        if record:
            state.attention_rs = record[0].mean(dim=1).flatten(0, 1)  # (b, h, k, s) -> (rows, s)
        return self.logits(self.decoder_norm(x_rd))


def _attention_mask(mask_bs: Tensor) -> Tensor | None:
    """(b, s) as (b, 1, 1, s), or None where nothing is masked, which is quicker."""
    return None if mask_bs.device.type == "cpu" and bool(mask_bs.all()) else mask_bs[:, None, None, :]
