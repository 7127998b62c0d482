from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from duihua.errors import ConfigError, GenerationError
from duihua.models.recurrent_translator import RecurrentTranslator
from duihua.models.recurrent_translator_config import RecurrentTranslatorConfig
from duihua.models.translator import pad_rows

ROWS = [[5, 6, 7, 8, 2], [9, 10, 2], [11, 12, 13, 14, 15, 16, 2]]
EVERY = [(cell, attention) for cell in ("rnn", "gru", "lstm") for attention in ("none", "additive", "general")]


def small(seed: int = 0, **changes: Any) -> RecurrentTranslator:
    settings = {"vocabulary_size": 40, "width": 12, "hidden_width": 10, "most_tokens": 32} | changes
    network = RecurrentTranslator(RecurrentTranslatorConfig(**settings))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.5)
    return network.eval()


def batch() -> tuple[Tensor, Tensor, Tensor]:
    source, mask = pad_rows(ROWS, 3)
    target = torch.randint(4, 40, (3, 6), generator=torch.Generator().manual_seed(3))
    target[:, 0] = 1
    return source, mask, target


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(("cell", "attention"), EVERY)
def test_a_step_gives_the_last_position_of_forward(cell: str, attention: str, layers: int) -> None:
    network = small(cell=cell, attention=attention, layers=layers, bidirectional=layers == 1)
    source, mask, target = batch()
    expected = network(source, mask, target)
    assert expected.std() > 0.1
    weights = network.attention(source, mask, target)
    assert [tuple(each.shape) for each in weights] == ([] if attention == "none" else [(3, 1, 6, 7)])
    state = network.start(network.encode(source, mask), watch=True)
    for place in range(target.shape[1]):
        torch.testing.assert_close(network.step(target[:, place], state), expected[:, place], atol=1e-5, rtol=0)
        if weights:
            assert state.attention_rs is not None
            torch.testing.assert_close(state.attention_rs, weights[0][:, 0, place], atol=1e-6, rtol=0)


@pytest.mark.parametrize(("cell", "attention"), EVERY)
def test_padded_sources_give_what_they_give_alone(cell: str, attention: str) -> None:
    network = small(cell=cell, attention=attention)
    source, mask, target = batch()
    together, blind = network(source, mask, target), network(source, torch.ones_like(mask), target)
    for number, row in enumerate(ROWS):
        ids, real = pad_rows([row], 3)
        alone = network(ids, real, target[number : number + 1])[0]
        torch.testing.assert_close(together[number], alone, atol=1e-5, rtol=0)
        assert ((blind[number] - alone).abs().max() > 1e-3) == (len(row) < source.shape[1])


@pytest.mark.parametrize(("cell", "attention"), EVERY)
@pytest.mark.parametrize("reordered", [True, False])
def test_beams_that_change_places_need_their_states_to_change_places(
    cell: str, attention: str, reordered: bool
) -> None:
    network = small(cell=cell, attention=attention)
    source, mask, target = batch()
    state = network.start(network.encode(source, mask), beams=2)
    first = torch.stack((target, target.flip(0)), dim=1).flatten(0, 1)
    for place in range(3):
        network.step(first[:, place], state)
    order = torch.tensor([1, 1, 5, 4])  # the second sentence is done; the third one's beams change places
    state.reorder(order if reordered else torch.tensor([0, 1, 4, 5]))
    found = network.step(first[order, 3], state)
    expected = network(source[order // 2], mask[order // 2], first[order, :4])[:, -1]
    assert torch.allclose(found, expected, atol=1e-5) == reordered


@pytest.mark.parametrize("attention", ["additive", "general"])
def test_attention_sums_to_one_and_never_falls_on_pads(attention: str) -> None:
    source, mask, target = batch()
    (weights,) = small(attention=attention).attention(source, mask, target)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 1, 6))
    assert float((weights.detach() * ~mask[:, None, None]).max()) == 0.0


def test_additive_attention_is_bahdanaus_formula() -> None:
    network = small(attention="additive")
    source, mask, target = batch()
    attention, memory = network.source_attention, network.encode(source, mask)
    assert attention is not None and attention.query is not None and attention.energy is not None
    cell = memory.first[0][0]  # the state that the first look is made with: before the first token is read
    for row in range(3):
        scores = [
            float(
                attention.energy.weight[0]
                @ torch.tanh(attention.query.weight @ cell[row] + attention.key.weight @ read)
            )
            for read in memory.states_bsd[row, : len(ROWS[row])]
        ]
        found = network.attention(source, mask, target)[0][row, 0, 0, : len(ROWS[row])]
        torch.testing.assert_close(found, torch.tensor(scores).softmax(0), atol=1e-5, rtol=0)


def test_general_attention_looks_with_the_state_after_the_token() -> None:
    network = small(attention="general")
    source, mask, target = batch()
    attention, memory = network.source_attention, network.encode(source, mask)
    assert attention is not None
    state, _ = network.decoder(network.target_embedding(target[:, :1]), memory.first[0])
    scores = torch.einsum("bh,hm,bsm->bs", state[:, 0], attention.key.weight, memory.states_bsd)
    expected = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    found = network.attention(source, mask, target)[0][:, 0, 0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    before = torch.einsum("bh,hm,bsm->bs", memory.first[0][0], attention.key.weight, memory.states_bsd)
    assert (before.masked_fill(~mask, -torch.inf).softmax(-1) - found).abs().max() > 1e-3


def test_without_attention_the_last_state_is_all_that_the_decoder_has() -> None:
    network = small(attention="none", bidirectional=False)
    source, mask, target = batch()
    _, last = network.encoder(network.source_embedding(source[2:]))
    first = torch.tanh(network.bridges[0](last))
    states, _ = network.decoder(network.target_embedding(target[2:]), first)
    expected = torch.tanh(network.readout(states)) @ network.head.weight.t()
    torch.testing.assert_close(network(source, mask, target)[2:], expected, atol=1e-5, rtol=0)
    memory = network.encode(source, mask)
    memory.states_bsd.fill_(0.0)
    torch.testing.assert_close(network.logits(network.decode(memory, target))[2:], expected, atol=1e-5, rtol=0)
    looking = small(attention="additive")
    memory = looking.encode(source, mask)
    seen = looking.decode(memory, target)
    memory.states_bsd.fill_(0.0)
    assert (looking.decode(memory, target) - seen).abs().max() > 1e-2


def test_a_new_lstm_remembers_and_its_start_follows_from_the_seed() -> None:
    network = RecurrentTranslator(RecurrentTranslatorConfig(40, 12, 10, cell="lstm", layers=2)).initialise(3)
    torch.rand(3)
    again = RecurrentTranslator(RecurrentTranslatorConfig(40, 12, 10, cell="lstm", layers=2)).initialise(3)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    for lstm in (network.encoder, network.decoder):
        for name, bias in lstm.named_parameters():
            if "bias" in name:
                forget = 1.0 if "bias_ih" in name else 0.0
                assert torch.equal(bias[10:20], torch.full((10,), forget)) and float(bias[:10].abs().max()) == 0.0
    square = network.decoder.weight_hh_l0[10:20]
    torch.testing.assert_close(square @ square.t(), torch.eye(10), atol=1e-5, rtol=0)


def test_losses_are_torchs_cross_entropy_with_smoothing() -> None:
    network = small()
    source, mask, target = batch()
    hidden, weights = network.hidden(source, mask, target[:, :-1]), torch.ones(3, 5)
    total, _ = network.next_token_losses(hidden, target[:, 1:], weights, 0.1)
    logits = network.logits(hidden).flatten(0, 1)
    expected = nn.functional.cross_entropy(logits, target[:, 1:].flatten(), reduction="sum", label_smoothing=0.1)
    torch.testing.assert_close(total, expected, atol=1e-4, rtol=0)
    total.backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in network.parameters())


def test_what_is_too_long_or_impossible_is_refused() -> None:
    source, mask, target = batch()
    with pytest.raises(GenerationError, match="a source of 7 tokens is longer than the model's 6"):
        small(most_tokens=6)(source, mask, target)
    for wrong in ({"layers": 0}, {"dropout": 1.0}, {"start_id": 40}):
        with pytest.raises(ConfigError) as caught:
            small(**wrong)
        assert caught.value.where == next(iter(wrong))


@pytest.mark.parametrize("attention", ["none", "general", "additive"])
def test_where_recurrent_kernels_would_run_in_fp16_they_run_in_fp32(
    attention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU's under bf16; here the processor's stand in for them."""
    network = small(cell="lstm", attention=attention)
    kinds: set[torch.dtype] = set()

    def note(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        kinds.update((output[0].data.dtype, *(part.dtype for part in output[1])))

    for kernels in (network.encoder, network.decoder):
        kernels.register_forward_hook(note)
    with torch.autocast("cpu", torch.bfloat16):
        network(*batch())
        assert torch.bfloat16 in kinds, "the negative control"
        kinds.clear()
        monkeypatch.setattr("duihua.models.recurrent_translator.runs_in_fp16", torch.is_autocast_enabled)
        found = network(*batch())
    assert kinds == {torch.float32} and bool(found.isfinite().all())
