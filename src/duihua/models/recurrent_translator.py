"""Recurrent sequence-to-sequence networks: what translated before the Transformer.

An encoder reads the source into a state; a decoder starts from that state and writes the target, one token after the other,
also in training: this loop is what the Transformer gets rid of. With `attention: none` the last state is all that the
decoder ever has (Sutskever et al. 2014), so that long sentences are forgotten; Bahdanau et al. 2015 let it look back at a
vector for each source token before each step, Luong et al. 2015 after it. One class, and the contract of
models/translator.py, so that the same training, beam search and pictures serve.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from duihua.models.recurrent_translator_config import RecurrentTranslatorConfig
from duihua.models.translator import DecodingState, Memory, check_length, moved_rows
from duihua.nn.embedding import Embedding
from duihua.nn.losses import cross_entropy_sum
from duihua.nn.products import Linear
from duihua.nn.recurrent import runs_in_fp16

CELLS: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
State = tuple[Tensor, ...]


@contextmanager
def _in_fp32(x: Tensor) -> Iterator[bool]:
    """Inside, torch's recurrent kernels do not run in fp16 where bf16 was asked for; whether they would have."""
    changed = runs_in_fp16(x.device.type)
    with torch.autocast(x.device.type, enabled=False) if changed else nullcontext():
        yield changed


class SourceAttention(nn.Module):
    """Weights of decoder states over the encoder's vectors, and the vectors' weighted mean, the context."""

    def __init__(self, config: RecurrentTranslatorConfig) -> None:
        super().__init__()
        hidden, memory = config.hidden_width, config.memory_width
        self.additive = config.attention == "additive"
        self.key = Linear(memory, hidden, bias=False)
        self.query = Linear(hidden, hidden, bias=False) if self.additive else None
        self.energy = Linear(hidden, 1, bias=False) if self.additive else None

    def forward(self, query_bth: Tensor, keys_bsh: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """keys_bsh: `key` of the memory's vectors, worked out once. Gives contexts (b, t, memory) and weights (b, t, s)."""
        if self.query is not None and self.energy is not None:  # v tanh(W s + U h)
            both = torch.tanh(self.query(query_bth)[:, :, None] + keys_bsh[:, None])
            scores_bts = self.energy(both)[..., 0]
        else:  # s W h
            scores_bts = query_bth @ keys_bsh.transpose(1, 2)
        scores_bts = scores_bts.masked_fill(~memory.mask_bs[:, None], -torch.inf)
        weights_bts = scores_bts.softmax(dim=-1)
        return weights_bts @ memory.states_bsd, weights_bts


class RecurrentState:
    """The decoder between two steps: see `DecodingState`. cell: its tensors (layers, rows, hidden)."""

    def __init__(self, memory: Memory, keys_bsh: Tensor | None, cell: State, beams: int, watch: bool) -> None:
        self.memory, self.keys_bsh, self.cell, self.beams, self.watch = memory, keys_bsh, cell, beams, watch
        self.length = 0
        self.attention_rs: Tensor | None = None

    @property
    def rows(self) -> int:
        return self.cell[0].shape[1]

    def reorder(self, rows_r: Tensor) -> None:
        sentences, rows = moved_rows(rows_r, self.beams, self.rows)
        if sentences is not None:
            memory = self.memory
            self.memory = Memory(memory.states_bsd[sentences], memory.mask_bs[sentences])
            self.keys_bsh = None if self.keys_bsh is None else self.keys_bsh[sentences]
        if rows is not None:
            self.cell = tuple(part[:, rows] for part in self.cell)
            self.attention_rs = None if self.attention_rs is None else self.attention_rs[rows]


class RecurrentTranslator(nn.Module):
    """Source (b, s) and target (b, t) -> logits (b, t, v). See models/translator.py for the contract."""

    def __init__(self, config: RecurrentTranslatorConfig) -> None:
        super().__init__()
        assert config.vocabulary_size, "the stage sets the vocabulary's size"
        self.config = config
        size, width, hidden, tied = config.vocabulary_size, config.width, config.hidden_width, config.tied_embeddings
        self.target_embedding = Embedding(size, width)
        self.source_embedding = self.target_embedding if tied == "all" else Embedding(size, width)
        cell, between = CELLS[config.cell], config.dropout if config.layers > 1 else 0.0
        self.encoder = cell(
            width, hidden, config.layers, batch_first=True, dropout=between, bidirectional=config.bidirectional
        )
        parts = 2 if config.cell == "lstm" else 1
        self.bridges = nn.ModuleList(Linear(config.memory_width, hidden) for _ in range(parts))
        looks = config.attention != "none"
        fed = width + (config.memory_width if config.attention == "additive" else 0)
        self.decoder = cell(fed, hidden, config.layers, batch_first=True, dropout=between)
        self.source_attention = SourceAttention(config) if looks else None
        self.readout = Linear(hidden + (config.memory_width if looks else 0), width)
        self.dropout = nn.Dropout(config.dropout)
        self.head = Linear(width, size, bias=False)
        if tied != "none":
            self.head.weight = self.target_embedding.weight

    def initialise(self, seed: int) -> RecurrentTranslator:
        """Fill the weights from a seed of their own. Returns self.

        Matrices uniform with deviation 1/sqrt(inputs), those from state to state orthogonal a gate, which neither shrinks nor
        stretches what is remembered (Saxe et al. 2014; Bahdanau et al. 2015, appendix B.1); embeddings N(0, 0.1^2); biases
        zero, but for the LSTM's forget gates.
        """
        generator = torch.Generator().manual_seed(seed)
        hidden = self.config.hidden_width
        with torch.no_grad():
            for name, weight in self.named_parameters():
                if weight.ndim == 1:
                    weight.zero_()
                    if (
                        self.config.cell == "lstm" and "bias_ih" in name
                    ):  # gates in torch's order: in, forget, cell, out
                        weight[hidden : 2 * hidden] = self.config.forget_bias
                elif "weight_hh" in name:
                    for gate in torch.split(weight, hidden):
                        gate.copy_(torch.linalg.qr(torch.randn(hidden, hidden, generator=generator))[0])
                elif "embedding" in name or name == "head.weight":
                    weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
                else:
                    bound = (3.0 / weight.shape[1]) ** 0.5
                    weight.copy_((torch.rand(weight.shape, generator=generator) * 2 - 1) * bound)
        return self

    # -- a whole target in one pass -----------------------------------------------------------------------------------

    def encode(self, source_bs: Tensor, source_mask_bs: Tensor) -> Memory:
        """A vector a source token, and the decoder's first state: tanh of a projection of each layer's last states."""
        check_length(source_bs.shape[1], self.config, "source")
        mask_bs = source_mask_bs.bool()
        embedded = self.dropout(self.source_embedding(source_bs))
        packed = nn.utils.rnn.pack_padded_sequence(
            embedded, mask_bs.sum(dim=1).cpu(), batch_first=True, enforce_sorted=False
        )
        with _in_fp32(embedded):
            read, last = self.encoder(packed)
        states_bsd, _ = nn.utils.rnn.pad_packed_sequence(read, batch_first=True, total_length=source_bs.shape[1])
        first = []
        for bridge, part in zip(self.bridges, last if isinstance(last, tuple) else (last,), strict=True):
            layers = part.view(self.config.layers, -1, source_bs.shape[0], self.config.hidden_width)
            first.append(torch.tanh(bridge(layers.transpose(1, 2).flatten(2))))
        return Memory(states_bsd, mask_bs, tuple(first))

    def decode(self, memory: Memory, target_bt: Tensor, record: list[Tensor] | None = None) -> Tensor:
        """The vectors before the output layer, (b, t, width). record: gets the weights over the source (b, 1, t, s)."""
        check_length(target_bt.shape[1], self.config, "target")
        hidden, _, weights = self._run(target_bt, memory, self._keys(memory), memory.first)
        if record is not None and weights is not None:
            record.append(weights[:, None])
        return hidden

    def hidden(self, source_bs: Tensor, source_mask_bs: Tensor, target_bt: Tensor) -> Tensor:
        """The vectors before the output layer, (b, t, width): `logits` and `next_token_losses` start here."""
        return self.decode(self.encode(source_bs, source_mask_bs), target_bt)

    def logits(self, hidden: Tensor) -> Tensor:
        """What `hidden` gave, (..., width), as logits (..., v)."""
        logits: Tensor = self.head(hidden)
        return logits

    def next_token_losses(
        self, hidden: Tensor, targets: Tensor, weights: Tensor, smoothing: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """See `Translator`."""
        return cross_entropy_sum(hidden, self.head.weight, targets, weights, smoothing=smoothing)

    def forward(self, source_bs: Tensor, source_mask_bs: Tensor, target_bt: Tensor) -> Tensor:
        """Logits (b, t, v) for the token after each position of the target, which starts with start_id."""
        return self.logits(self.hidden(source_bs, source_mask_bs, target_bt))

    def attention(self, source_bs: Tensor, source_mask_bs: Tensor, target_bt: Tensor) -> list[Tensor]:
        """Weights of the target over the source, one tensor (b, 1, t, s); none where there is no attention."""
        record: list[Tensor] = []
        self.decode(self.encode(source_bs, source_mask_bs), target_bt, record)
        return record

    def _keys(self, memory: Memory) -> Tensor | None:
        """What queries are compared with, (b, s, hidden): once a source, however many tokens are written."""
        if self.source_attention is None:
            return None
        keys_bsh: Tensor = self.source_attention.key(memory.states_bsd)
        return keys_bsh

    def _run(
        self, target_bt: Tensor, memory: Memory, keys_bsh: Tensor | None, cell: State, beams: int = 1
    ) -> tuple[Tensor, State, Tensor | None]:
        """Read `target_bt` from a state on: vectors before the output layer (b, t, width), the state after, weights (b, t, s).

        With beams, b counts rows, and each `beams` of them look at the same sentence of the memory; then t is 1.
        """
        embedded = self.dropout(self.target_embedding(target_bt))
        if self.source_attention is None or keys_bsh is None:
            states, cell = self._cells(embedded, cell)
            return self._read_out(states), cell, None
        if self.config.attention == "general":
            states, cell = self._cells(embedded, cell)
            queries = states.view(-1, beams, states.shape[-1]) if beams > 1 else states
            contexts, weights = self.source_attention(queries, keys_bsh, memory)
            contexts, weights = contexts.view(*states.shape[:2], -1), weights.view(*states.shape[:2], -1)
            return self._read_out(torch.cat((states, contexts), dim=-1)), cell, weights
        found: list[Tensor] = []
        looked: list[Tensor] = []
        for place in range(target_bt.shape[1]):  # each look needs the state before: no way around the loop
            query = cell[0][-1].view(-1, beams, self.config.hidden_width)
            contexts, weights = self.source_attention(query, keys_bsh, memory)
            context = contexts.view(target_bt.shape[0], 1, -1)
            state, cell = self._cells(torch.cat((embedded[:, place : place + 1], context), dim=-1), cell)
            found.append(torch.cat((state, context), dim=-1))
            looked.append(weights.view(target_bt.shape[0], 1, -1))
        return self._read_out(torch.cat(found, dim=1)), cell, torch.cat(looked, dim=1)

    def _cells(self, input_bti: Tensor, cell: State) -> tuple[Tensor, State]:
        """The decoder's layers over an input, from a state on."""
        with _in_fp32(input_bti) as changed:
            if changed:
                input_bti, cell = input_bti.float(), tuple(part.float() for part in cell)
            states, last = self.decoder(input_bti, cell if self.config.cell == "lstm" else cell[0])
        return states, last if isinstance(last, tuple) else (last,)

    def _read_out(self, vectors: Tensor) -> Tensor:
        """tanh(W [state; context]) (Luong et al. 2015, equation 5), as wide as the embedding, which is the output layer."""
        y: Tensor = self.dropout(torch.tanh(self.readout(vectors)))
        return y

    # -- a token at a time --------------------------------------------------------------------------------------------

    def start(self, memory: Memory, beams: int = 1, watch: bool = False) -> RecurrentState:
        """A state of b * beams rows that has read nothing."""
        cell = tuple(part.repeat_interleave(beams, dim=1) for part in memory.first)
        return RecurrentState(memory, self._keys(memory), cell, beams, watch)

    def step(self, ids_r: Tensor, state: DecodingState) -> Tensor:
        """Logits (rows, v) after one token more a row."""
        assert isinstance(state, RecurrentState)
        check_length(state.length + 1, self.config, "target")
        hidden, state.cell, weights = self._run(ids_r[:, None], state.memory, state.keys_bsh, state.cell, state.beams)
        state.length += 1
        state.attention_rs = weights[:, 0] if state.watch and weights is not None else None
        return self.logits(hidden[:, 0])
