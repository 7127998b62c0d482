"""The written-out recurrent layers against torch's own: outputs, states, gradients; and variants that must fail."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from duihua.nn import recurrent
from duihua.nn.recurrent import RecurrentLayer, State
from duihua.nn.recurrent_kinds import CellKind, layer_parameters

TORCH: dict[CellKind, type[nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
CELLS: list[CellKind] = ["rnn", "lstm", "gru"]
TOLERANCE = 1e-10


def pair(cell: CellKind, dtype: torch.dtype = torch.float64) -> tuple[RecurrentLayer, nn.RNNBase]:
    """Our layer and torch's with the same weights."""
    torch.manual_seed(3)
    ours, theirs = RecurrentLayer(cell, 5, 7).to(dtype), TORCH[cell](5, 7, batch_first=True).to(dtype)
    with torch.no_grad():
        for name, weight in zip(
            ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"), weights(ours), strict=True
        ):
            weight.copy_(getattr(theirs, name))
    return ours, theirs


def weights(layer: RecurrentLayer) -> list[nn.Parameter]:
    return [layer.input_weight, layer.recurrent_weight, layer.input_bias, layer.recurrent_bias]


def differences(
    cell: CellKind, run: Callable[[RecurrentLayer, Tensor, State], tuple[Tensor, State]]
) -> dict[str, float]:
    """Largest difference from torch in outputs, last state and all gradients, from a state that is not zero."""
    ours, theirs = pair(cell)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 11, 5, generator=generator, dtype=torch.float64)
    first = [torch.randn(3, 7, generator=generator, dtype=torch.float64) for _ in ours.start(3)]
    results = []
    for number in range(2):
        inputs = x.clone().requires_grad_()
        state = tuple(part.clone().requires_grad_() for part in first)
        if number == 0:
            y, after = run(ours, inputs, state)
            parameters: list[Tensor] = list(weights(ours))
        else:
            given = tuple(part[None] for part in state)
            y, last = theirs(inputs, given if cell == "lstm" else given[0])
            after = tuple(part[0] for part in (last if cell == "lstm" else (last,)))
            parameters = list(theirs.parameters())
        total = (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum() + sum(
            part.sum() for part in after
        )
        gradients = torch.autograd.grad(total, [inputs, *state, *parameters])
        results.append(
            {"output": y, "state": torch.cat(after), "gradients": torch.cat([g.flatten() for g in gradients])}
        )
    return {name: float((results[0][name] - results[1][name]).abs().max().detach()) for name in results[0]}


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_equals_torch_in_outputs_states_and_gradients(cell: CellKind, fused: bool) -> None:
    found = differences(cell, lambda layer, x, state: layer(x, state, fused=fused))
    assert max(found.values()) < TOLERANCE, found


@pytest.mark.parametrize("cell", CELLS)
def test_one_step_at_a_time_equals_torch(cell: CellKind) -> None:
    def stepwise(layer: RecurrentLayer, x: Tensor, state: State) -> tuple[Tensor, State]:
        made = []
        for x_bd in x.unbind(dim=1):
            y, state = layer.step(x_bd, state)
            made.append(y)
        return torch.stack(made, dim=1), state

    assert max(differences(cell, stepwise).values()) < TOLERANCE


def test_in_single_precision_the_difference_is_rounding() -> None:
    for cell, fused in itertools.product(CELLS, (True, False)):
        ours, theirs = pair(cell, torch.float32)
        x = torch.randn(2, 20, 5)
        torch.testing.assert_close(ours(x, fused=fused)[0], theirs(x)[0], rtol=0, atol=1e-6)


# -- negative controls: the same check rejects what is easily got wrong ---------------------------------------------------


def test_gates_in_another_order_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def swapped(projected: Tensor, state: State, weight: Tensor, bias: Tensor) -> tuple[State, recurrent.Gates]:
        hidden, cell = state
        f, i, g, o = (projected + F.linear(hidden, weight, bias)).chunk(4, dim=-1)  # forget and input gate swapped
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        return (o.sigmoid() * cell.tanh(), cell), {}

    monkeypatch.setitem(recurrent._STEPS, "lstm", swapped)
    found = differences("lstm", lambda layer, x, state: layer(x, state, fused=False))
    assert min(found.values()) > 1e-3, found


def test_a_reset_gate_before_the_product_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def before(projected: Tensor, state: State, weight: Tensor, bias: Tensor) -> tuple[State, recurrent.Gates]:
        (hidden,) = state
        x_r, x_z, x_n = projected.chunk(3, dim=-1)
        h_r, h_z, _ = F.linear(hidden, weight, bias).chunk(3, dim=-1)
        r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
        n = (x_n + F.linear(r * hidden, weight[-7:], bias[-7:])).tanh()  # the form of Cho et al. 2014
        return ((1 - z) * n + z * hidden,), {}

    monkeypatch.setitem(recurrent._STEPS, "gru", before)
    found = differences("gru", lambda layer, x, state: layer(x, state, fused=False))
    assert min(found.values()) > 1e-3, found


# -- gates, forget bias, parameters ----------------------------------------------------------------------------------------


def test_gates_explain_the_states() -> None:
    layer, x = RecurrentLayer("lstm", 5, 7).double(), torch.randn(2, 6, 5, dtype=torch.float64)
    y, state, gates = layer.with_gates(x)
    assert torch.equal(y, layer(x, fused=False)[0])
    cell = torch.zeros(2, 7, dtype=torch.float64)
    for t in range(6):
        cell = gates["forget"][:, t] * cell + gates["input"][:, t] * gates["candidate"][:, t]
        torch.testing.assert_close(cell, gates["cell"][:, t])
        torch.testing.assert_close(y[:, t], gates["output"][:, t] * cell.tanh())
    torch.testing.assert_close(state[1], cell)
    assert set(RecurrentLayer("gru", 5, 7).with_gates(x.float())[2]) == {"reset", "update", "candidate"}
    assert RecurrentLayer("rnn", 5, 7).with_gates(x.float())[2] == {}


def test_gates_of_a_hand_case() -> None:
    layer = RecurrentLayer("lstm", 1, 1)
    with torch.no_grad():
        for weight in weights(layer):
            weight.zero_()
        layer.input_weight[2] = 1.0  # the candidate alone sees x
    _, (hidden, cell), gates = layer.with_gates(torch.tensor([[[2.0]]]))
    assert float(gates["forget"].detach()) == 0.5  # sigmoid(0)
    assert float(cell.detach()) == pytest.approx(0.5 * 0.964028, abs=1e-6)  # 1/2 tanh(2)
    assert float(hidden.detach()) == pytest.approx(0.5 * 0.447855, abs=1e-6)


def test_forget_bias_opens_the_forget_gate_and_no_other() -> None:
    plain, biased = RecurrentLayer("lstm", 3, 4), RecurrentLayer("lstm", 3, 4, forget_bias=1.0)
    for layer in (plain, biased):
        layer.initialise(torch.Generator().manual_seed(0))
    changed = biased.input_bias + biased.recurrent_bias
    assert changed[4:8].tolist() == [1.0] * 4
    assert torch.equal(changed[:4], (plain.input_bias + plain.recurrent_bias)[:4])
    assert torch.equal(changed[8:], (plain.input_bias + plain.recurrent_bias)[8:])


def test_a_state_carried_over_is_the_sequence_in_one_piece() -> None:
    for cell in CELLS:
        layer, x = RecurrentLayer(cell, 5, 7).double(), torch.randn(2, 9, 5, dtype=torch.float64)
        whole, last = layer(x)
        first, state = layer(x[:, :4])
        second, after = layer(x[:, 4:], state)
        torch.testing.assert_close(torch.cat((first, second), dim=1), whole)
        torch.testing.assert_close(after[0], last[0])
        forgotten, _ = layer(x[:, 4:])  # without the state it is another text
        assert float((forgotten - whole[:, 4:]).abs().max().detach()) > 1e-3


def test_parameters_are_as_the_formula_says() -> None:
    for cell in CELLS:
        layer = RecurrentLayer(cell, 5, 7)
        assert sum(weight.numel() for weight in layer.parameters()) == layer_parameters(cell, 5, 7)
        assert layer_parameters(cell, 5, 7) == sum(p.numel() for p in TORCH[cell](5, 7).parameters())


@pytest.mark.parametrize("cell", CELLS)
def test_where_the_kernels_would_run_in_fp16_they_run_in_fp32(cell: CellKind, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's under bf16; here the processor's stand in for them."""
    ours, _ = pair(cell, torch.float32)
    x = torch.randn(3, 11, 5, generator=torch.Generator().manual_seed(1))
    exact, _ = ours(x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, _ = ours(x)
        monkeypatch.setattr(recurrent, "runs_in_fp16", torch.is_autocast_enabled)
        found, after = ours(x.bfloat16(), tuple(part.bfloat16() for part in ours.start(3)))
        again, _ = ours(x)
    assert torch.equal(again, exact)
    assert found.dtype is torch.float32 and {part.dtype for part in after} == {torch.float32}
    assert cell == "gru" or not torch.equal(
        rounded.float(), exact
    )  # the negative control; the GRU's is fp32 here anyway


def test_a_gpus_recurrent_kernels_would_run_in_fp16_under_bf16_alone() -> None:
    assert not recurrent.runs_in_fp16("cuda")
    torch.set_autocast_enabled("cuda", True)  # what torch.autocast sets, which refuses where no GPU is
    before = torch.get_autocast_dtype("cuda")
    try:
        torch.set_autocast_dtype("cuda", torch.bfloat16)
        assert recurrent.runs_in_fp16("cuda") and not recurrent.runs_in_fp16("cpu")
        torch.set_autocast_dtype("cuda", torch.float16)
        assert not recurrent.runs_in_fp16("cuda"), "fp16 is what was asked for, and it has its loss scale"
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.set_autocast_dtype("cuda", before)
