"""Recurrent layers written out: the tanh RNN of Elman (1990), the LSTM with a forget gate and the GRU.

    RNN   h = tanh(W x + b + U h + u)

    LSTM  i = sigmoid(...)   input gate: how much of the candidate is written        (Hochreiter and Schmidhuber 1997;
          f = sigmoid(...)   forget gate: how much of the old cell is kept            the forget gate: Gers et al. 2000)
          g = tanh(...)      candidate
          o = sigmoid(...)   output gate: how much of the cell is shown
          c = f * c + i * g,    h = o * tanh(c),    each (...) = W x + b + U h + u with matrices of its own

    GRU   r = sigmoid(...)   reset gate,   z = sigmoid(...)   update gate             (Cho et al. 2014, in the form of
          n = tanh(W x + b + r * (U h + u)),    h = (1 - z) * n + z * h               Chung et al. 2014 and cuDNN)

The one idea of the LSTM stands in the line of c: along it a gradient is multiplied by f and by nothing else, and f can stay
near 1, where the RNN's is multiplied by U and the slope of tanh at every step and dies or explodes. A forget bias of 1
makes f start there (Jozefowicz et al. 2015, section 3).

Time cannot be parallel, the input side can: W x + b is one product for all steps, and only U h waits for the step before.
The same mathematics is in torch's own kernels, which are faster and show no gates; `forward` takes them unless told
otherwise, and a test holds both ways and their gradients equal. Weights have torch's layout (blocks i f g o; r z n; two
biases, because the GRU's reset gate acts on U h + u), so they can be copied from and to torch.nn.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from duihua.nn.products import linear
from duihua.nn.recurrent_kinds import BLOCKS, CellKind

State: TypeAlias = tuple[Tensor, ...]
"""(h,) of the RNN and the GRU, (h, c) of the LSTM; each (b, e)."""
Gates: TypeAlias = dict[str, Tensor]
Step: TypeAlias = Callable[[Tensor, State, Tensor, Tensor], tuple[State, Gates]]
"""(W x + b of this step (b, blocks e), state, U, u) -> new state and what the gates said, each (b, e)."""


def rnn_step(projected: Tensor, state: State, weight: Tensor, bias: Tensor) -> tuple[State, Gates]:
    """One step of the tanh RNN; it has no gates."""
    hidden = torch.tanh(projected + linear(state[0], weight, bias))
    return (hidden,), {}


def lstm_step(projected: Tensor, state: State, weight: Tensor, bias: Tensor) -> tuple[State, Gates]:
    """One step of the LSTM; gates input, forget, candidate, output, and the new cell."""
    hidden, cell = state
    i, f, g, o = (projected + linear(hidden, weight, bias)).chunk(4, dim=-1)
    i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
    cell = f * cell + i * g
    hidden = o * torch.tanh(cell)
    return (hidden, cell), {"input": i, "forget": f, "candidate": g, "output": o, "cell": cell}


def gru_step(projected: Tensor, state: State, weight: Tensor, bias: Tensor) -> tuple[State, Gates]:
    """One step of the GRU; gates reset, update, candidate. The reset acts after the product, as in torch and cuDNN."""
    (hidden,) = state
    x_r, x_z, x_n = projected.chunk(3, dim=-1)
    h_r, h_z, h_n = linear(hidden, weight, bias).chunk(3, dim=-1)
    r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
    n = torch.tanh(x_n + r * h_n)
    return ((1 - z) * n + z * hidden,), {"reset": r, "update": z, "candidate": n}


_STEPS: dict[CellKind, Step] = {"rnn": rnn_step, "lstm": lstm_step, "gru": gru_step}


def runs_in_fp16(kind: str) -> bool:
    """Whether torch's recurrent kernels on such a device would compute in fp16 where bf16 was asked for.

    On a GPU they do: autocast knows fp16 alone for cuDNN's (ATen/cudnn/AutocastRNN.cpp), whose small gradients become zero
    where no loss scale lifts them. They are called in fp32 then, which cuDNN multiplies as TF32.
    """
    return kind == "cuda" and torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) is torch.bfloat16


class RecurrentLayer(nn.Module):
    """One layer: (b, t, d) and a state -> (b, t, e) and the new state.

    forget_bias: what the LSTM's forget gate starts with (both biases together); None leaves it random like the rest.
    """

    def __init__(self, cell: CellKind, inputs: int, width: int, forget_bias: float | None = None) -> None:
        super().__init__()
        self.cell: CellKind = cell
        self.inputs, self.width, self.forget_bias = inputs, width, forget_bias
        rows = BLOCKS[cell] * width
        self.input_weight = nn.Parameter(torch.empty(rows, inputs))
        self.recurrent_weight = nn.Parameter(torch.empty(rows, width))
        self.input_bias = nn.Parameter(torch.empty(rows))
        self.recurrent_bias = nn.Parameter(torch.empty(rows))
        self.initialise()

    @torch.no_grad()
    def initialise(self, generator: torch.Generator | None = None) -> None:
        """torch's own start: everything uniform in +-1/sqrt(e); then the forget bias where one is asked for."""
        bound = 1.0 / math.sqrt(self.width)
        for weight in (self.input_weight, self.recurrent_weight, self.input_bias, self.recurrent_bias):
            if not weight.is_meta:
                weight.uniform_(-bound, bound, generator=generator)
        if self.cell == "lstm" and self.forget_bias is not None:
            forget = slice(self.width, 2 * self.width)
            self.input_bias[forget] = self.forget_bias
            self.recurrent_bias[forget] = 0.0

    def start(self, batch: int) -> State:
        """The state before the first step: zeros."""
        zeros = self.recurrent_weight.new_zeros(batch, self.width)
        return (zeros, zeros) if self.cell == "lstm" else (zeros,)

    def forward(
        self,
        x_btd: Tensor,
        state: State | None = None,
        *,
        recurrent_weight: Tensor | None = None,
        fused: bool = True,
    ) -> tuple[Tensor, State]:
        """Hidden vectors (b, t, e) of all steps and the state after the last.

        recurrent_weight: used in place of the layer's own (weight dropout). fused: torch's kernel, or the steps above.
        """
        state = self.start(x_btd.shape[0]) if state is None else state
        weight = self.recurrent_weight if recurrent_weight is None else recurrent_weight
        if not fused:
            y_bte, state, _ = self._written_out(x_btd, state, weight, keep_gates=False)
            return y_bte, state
        if runs_in_fp16(kind := x_btd.device.type):
            with torch.autocast(kind, enabled=False):
                return self.forward(x_btd.float(), tuple(part.float() for part in state), recurrent_weight=weight)
        weights = [self.input_weight, weight, self.input_bias, self.recurrent_bias]
        # train says whether there will be a backward pass: cuDNN needs to know, and it drops nothing here
        options = (True, 1, 0.0, torch.is_grad_enabled(), False, True)
        if self.cell == "lstm":
            y_bte, hidden, cell = torch.lstm(x_btd, [part.unsqueeze(0) for part in state], weights, *options)
            return y_bte, (hidden[0], cell[0])
        kernel = torch.gru if self.cell == "gru" else torch.rnn_tanh
        y_bte, hidden = kernel(x_btd, state[0].unsqueeze(0), weights, *options)
        return y_bte, (hidden[0],)

    def with_gates(self, x_btd: Tensor, state: State | None = None) -> tuple[Tensor, State, Gates]:
        """The same with what every gate said at every step, each (b, t, e): what a heat map shows. RNN: no gates."""
        state = self.start(x_btd.shape[0]) if state is None else state
        return self._written_out(x_btd, state, self.recurrent_weight, keep_gates=True)

    def step(self, x_bd: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: (b, d) and a state -> (b, e) and the new state."""
        projected = linear(x_bd, self.input_weight, self.input_bias)
        state, _ = _STEPS[self.cell](projected, state, self.recurrent_weight, self.recurrent_bias)
        return state[0], state

    def _written_out(
        self, x_btd: Tensor, state: State, weight: Tensor, keep_gates: bool
    ) -> tuple[Tensor, State, Gates]:
        step = _STEPS[self.cell]
        projected_btg = linear(x_btd, self.input_weight, self.input_bias)
        hidden, said = [], []
        for projected_bg in projected_btg.unbind(dim=1):
            state, gates = step(projected_bg, state, weight, self.recurrent_bias)
            hidden.append(state[0])
            if keep_gates:
                said.append(gates)
        names = said[0] if said else {}
        return torch.stack(hidden, dim=1), state, {name: torch.stack([g[name] for g in said], dim=1) for name in names}

    def extra_repr(self) -> str:
        return f"{self.cell}, {self.inputs} -> {self.width}"
