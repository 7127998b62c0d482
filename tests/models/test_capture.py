"""The capture changes nothing, and what it gives is what transformers gives with eager attention on the same weights."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from duihua.models.bundle import save_bundle
from duihua.models.capture import Captured, captured
from duihua.models.decoder import Decoder
from duihua.models.model_card import ModelCard
from duihua.models.presets import preset
from duihua.models.recurrent import RecurrentLM
from duihua.models.recurrent_config import RecurrentConfig
from duihua.models.transformer import Transformer
from duihua.models.transformer_config import TransformerConfig
from duihua.text.tokenizer import AbsentTokenizer

IDS = torch.randint(0, 90, (2, 9), generator=torch.Generator().manual_seed(3))
SMALL = {"vocabulary_size": 90, "width": 24, "layers": 3, "feed_forward_width": 40, "context": 16, "head_width": 6}
SHAPES = {
    "gpt1": {"heads": 4, "key_value_heads": 4},
    "gpt2": {"heads": 4, "key_value_heads": 4},
    "llama": {"heads": 4, "key_value_heads": 2},
    "qwen3": {"heads": 4, "key_value_heads": 2},
    "fast": {"heads": 4, "key_value_heads": 2},
}


def network(name: str) -> Decoder:
    """A tiny decoder of that family with weights large enough for attention that is not uniform."""
    made = Decoder(preset(name, **SMALL, **SHAPES[name]))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in made.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * (0.5 if weight.dim() > 1 else 0.3) + 0.1)
    return made.eval()


def look(made: nn.Module, ids: Tensor = IDS, **arguments: Tensor) -> tuple[Tensor, Captured]:
    with torch.no_grad(), captured(made) as inside:
        logits: Tensor = made(ids, **arguments)
    return logits, inside


@pytest.mark.parametrize("name", SHAPES)
def test_output_is_the_same_to_the_last_bit_and_nothing_stays_behind(name: str) -> None:
    made = network(name)
    with torch.no_grad():
        before = made(IDS)
    inside, collected = look(made)
    with torch.no_grad():
        after = made(IDS)
    assert torch.equal(before, inside)
    assert torch.equal(before, after)
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in made.modules())
    assert len(collected.attention) == 3  # nothing was added by the forward behind the block


@pytest.mark.parametrize("name", SHAPES)
def test_weights_add_up_to_one_and_nothing_looks_ahead(name: str) -> None:
    for number, attention in enumerate(look(network(name))[1].attention):
        weights = attention.weights()
        assert attention.layer == number
        assert (attention.stack, attention.kind, attention.name) == ("blocks", "self", f"blocks.{number}.attention")
        assert weights.shape == (2, 4, 9, 9)
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 9))
        assert torch.equal(weights, weights.tril())
        assert weights.std() > 0.1  # not uniform: the checks above would hold there too


@pytest.mark.parametrize("name", SHAPES)
def test_weighted_values_through_the_output_projection_are_what_the_layer_gave(name: str) -> None:
    made = network(name)
    for attention in look(made)[1].attention:
        module = made.get_submodule(attention.name)
        mixed = attention.mixed().transpose(1, 2).reshape(2, 9, -1)
        torch.testing.assert_close(module.output(mixed), attention.output_btd, atol=1e-5, rtol=1e-5)
        wrong = replace(attention, causal=False)  # negative control: the same check without the mask
        assert not torch.allclose(wrong.mixed(), attention.mixed(), atol=1e-3)


def test_residual_states_are_the_embedding_and_what_each_block_gave() -> None:
    made = network("qwen3")
    logits, inside = look(made)
    states = inside.states["blocks"]
    assert len(states) == 4
    assert torch.equal(states[0], made.embedding(IDS))
    assert torch.equal(made.logits(made.final_norm(states[-1])), logits)


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3"])
def test_weights_equal_those_of_transformers_with_eager_attention(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    made = network(name)
    save_bundle(tmp_path / "model", made, AbsentTokenizer(tmp_path), ModelCard(title="test", stage="test"))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", attn_implementation="eager").eval()
    inside = look(made)[1]
    with torch.no_grad():
        reference = theirs(IDS, output_attentions=True, output_hidden_states=True)
    for attention, expected in zip(inside.attention, reference.attentions, strict=True):
        torch.testing.assert_close(attention.weights(), expected, atol=1e-5, rtol=0)
        # Negative control: a forgotten scale would not pass.
        assert (replace(attention, scale=1.0).weights() - expected).abs().max() > 1e-2
    for state, expected in zip(inside.states["blocks"][:-1], reference.hidden_states[:-1], strict=True):
        torch.testing.assert_close(state, expected, atol=1e-5, rtol=1e-5)


def test_pads_are_not_looked_at_and_a_row_that_sees_nothing_gives_no_nan() -> None:
    mask = torch.tensor([[1] * 9, [1] * 6 + [0] * 3])
    attention = look(network("llama"), attention_mask_bt=mask)[1].attention[0]
    assert torch.equal(attention.weights()[1, :, :6, 6:], torch.zeros(4, 6, 3))
    blind = attention.visible().clone()
    blind[0, :, 2] = False
    hidden = replace(attention, mask=blind, causal=False)
    assert torch.equal(hidden.weights()[0, :, 2], torch.zeros(4, 9))
    assert not hidden.weights().isnan().any()
    assert hidden.masked_scores().softmax(-1).isnan().any()  # negative control: the bare softmax has them


def test_a_cache_gives_one_row_a_token_equal_to_the_whole_forward() -> None:
    made = network("qwen3")
    whole = look(made)[1].attention[1].weights()
    cache = made.new_cache(2)
    with torch.no_grad(), captured(made) as inside:
        for place in range(9):
            made(IDS[:, place : place + 1], positions_bt=torch.full((2, 1), place), cache=cache)
    rows = [attention for attention in inside.attention if attention.layer == 1]
    for place, attention in enumerate(rows):
        torch.testing.assert_close(attention.weights()[:, :, 0], whole[:, :, place, : place + 1])


def test_added_masks_and_attention_to_another_sequence_are_read_as_torch_computes_them() -> None:
    class Cross(nn.Module):
        def forward(self, query: Tensor, memory: Tensor, added: Tensor) -> Tensor:
            return nn.functional.scaled_dot_product_attention(query, memory, memory, attn_mask=added, scale=0.7)

    query, memory = torch.randn(1, 2, 3, 8), torch.randn(1, 2, 5, 8)
    added = torch.randn(3, 5).masked_fill(torch.eye(3, 5, dtype=torch.bool), -math.inf)
    with captured(Cross()) as inside:
        given = Cross()(query, memory, added)
    assert not inside.attention[0].name  # another module's call inside the block is seen too, without a name
    torch.testing.assert_close(inside.attention[0].mixed(), given)
    forgotten = replace(inside.attention[0], mask=added == -math.inf)
    assert not torch.allclose(forgotten.mixed(), given, atol=1e-3)  # negative control


def test_named_outputs_are_kept_and_unknown_ones_refused() -> None:
    made = network("gpt2")
    with torch.no_grad(), captured(made, outputs=("blocks.1.feed_forward",)) as inside:
        made(IDS)
    assert inside.outputs["blocks.1.feed_forward"][0].shape == (2, 9, 24)
    with pytest.raises(ValueError, match=r"no module named blocks\.7"), captured(made, outputs=("blocks.7",)):
        pass


def test_a_forward_that_fails_leaves_no_hooks() -> None:
    made = network("gpt2")
    with pytest.raises(Exception, match="longer than the context"), torch.no_grad(), captured(made):
        made(torch.zeros(1, 40, dtype=torch.long))
    assert all(not module._forward_hooks for module in made.modules())


def translator() -> Transformer:
    config = TransformerConfig(
        vocabulary_size=40, width=16, heads=2, feed_forward_width=24, encoder_layers=2, decoder_layers=3, most_tokens=12
    )
    return Transformer(config).initialise(5).eval()


def test_encoder_decoder_shows_all_three_attentions_and_stays_the_same() -> None:
    made = translator()
    source, target = IDS[:, :7] % 40, IDS[:, 2:7] % 40
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    with torch.no_grad():
        before, cross = made(source, mask, target), made.attention(source, mask, target)
        with captured(made) as inside:
            assert torch.equal(made(source, mask, target), before)
    assert [one.weights().shape[2:] for one in inside.layers("self", "encoder")] == [(7, 7)] * 2
    assert [one.weights().shape[2:] for one in inside.layers("self", "decoder")] == [(5, 5)] * 3
    assert len(inside.layers("cross")) == 3
    assert [len(inside.states[stack]) for stack in ("encoder", "decoder")] == [3, 4]
    for number, (attention, expected) in enumerate(zip(inside.layers("cross"), cross, strict=True)):
        assert attention.name == f"decoder.{number}.cross_attention"
        torch.testing.assert_close(attention.weights(), expected)
        assert torch.equal(attention.weights()[1, :, :, 4:], torch.zeros(2, 5, 3))  # nobody looks at a pad
    for attention in inside.layers("self", "decoder"):
        assert torch.equal(attention.weights(), attention.weights().tril())
    for attention in inside.layers("self", "encoder"):  # negative control: the encoder looks ahead
        assert not torch.equal(attention.weights(), attention.weights().tril())


def test_recurrent_network_shows_its_gates_and_stays_the_same() -> None:
    made = RecurrentLM(RecurrentConfig(vocabulary_size=40, width=10, layers=2)).initialise(2).eval()
    ids = IDS % 40
    with torch.no_grad():
        before = made(ids)[0]
        with captured(made) as inside:
            assert torch.equal(made(ids)[0], before)
        expected = made.gates(ids)
    assert [set(gates) for gates in inside.gates] == [{"input", "forget", "candidate", "output", "cell"}] * 2
    for gates, wanted in zip(inside.gates, expected, strict=True):
        for name, values in wanted.items():
            torch.testing.assert_close(gates[name], values)
