from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from duihua.config.build import build
from duihua.errors import ConfigError, GenerationError
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder
from duihua.models.transformer import Transformer
from duihua.models.transformer_config import TransformerConfig
from duihua.models.translator import pad_rows
from duihua.nn.positions import sinusoidal_halves_table, sinusoidal_table

SMALL = {
    "vocabulary_size": 40,
    "width": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "heads": 4,
    "feed_forward_width": 24,
}
ROWS = [[5, 6, 7, 8, 2], [9, 10, 2], [11, 12, 13, 14, 15, 16, 2]]


def small(seed: int = 0, scale: float = 0.4, **changes: Any) -> Transformer:
    """A network whose weights are all random and large enough that every part of it can be seen in the output."""
    network = Transformer(TransformerConfig(**({"most_tokens": 32} | SMALL | changes)))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            centre = 1.0 if weight.ndim == 1 else 0.0
            weight.copy_(centre + torch.randn(weight.shape, generator=generator) * scale)
    return network.eval()


def batch() -> tuple[Tensor, Tensor, Tensor]:
    source, mask = pad_rows(ROWS, 3)
    target = torch.randint(4, 40, (3, 6), generator=torch.Generator().manual_seed(3))
    target[:, 0] = 1
    return source, mask, target


# -- parameters -------------------------------------------------------------------------------------------------------


def test_the_base_model_with_37000_tokens_has_63_million_parameters() -> None:
    # 37000 x 512 = 18,944,000. An attention: 4 x 512^2 = 1,048,576; a feed-forward layer: 2 x 512 x 2048 + 2048 + 512 =
    # 2,099,712; a norm: 1,024. Encoder: 6 (1,048,576 + 2,099,712 + 2,048); decoder: 6 (2,097,152 + 2,099,712 + 3,072).
    config = TransformerConfig(vocabulary_size=37_000)
    assert config.parameters == 18_944_000 + 18_902_016 + 25_199_616 == 63_045_632
    with torch.device("meta"):
        assert sum(weight.numel() for weight in Transformer(config).parameters()) == 63_045_632
    assert dataclasses.replace(config, attention_bias=True).parameters == 63_045_632 + 18 * 4 * 512


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"norm_place": "pre"},
        {"final_norms": True},
        {"norm_place": "pre", "final_norms": False},
        {"positions": "learned"},
        {"attention_bias": True, "feed_forward_bias": False, "output_bias": True},
        {"tied_embeddings": "output"},
        {"tied_embeddings": "none", "encoder_layers": 3, "decoder_layers": 1},
    ],
)
def test_the_formula_counts_every_parameter(changes: dict[str, Any]) -> None:
    network = small(**changes)
    assert network.config.parameters == sum(weight.numel() for weight in network.parameters())


def test_three_way_tying_is_one_matrix() -> None:
    network = small()
    assert network.source_embedding.weight is network.target_embedding.weight is network.head.weight
    apart = small(tied_embeddings="none")
    assert apart.source_embedding.weight is not apart.target_embedding.weight is not apart.head.weight


# -- torch's own network ----------------------------------------------------------------------------------------------


def torchs_twin(network: Transformer) -> nn.Transformer:
    """torch's nn.Transformer with the same weights."""
    config = network.config
    twin = nn.Transformer(
        config.width,
        config.heads,
        config.encoder_layers,
        config.decoder_layers,
        config.feed_forward_width,
        dropout=0.0,
        batch_first=True,
        norm_first=config.norm_place == "pre",
    )
    state: dict[str, Tensor] = {}
    for side in ("encoder", "decoder"):
        for number, block in enumerate(getattr(network, side)):
            place = f"{side}.layers.{number}"
            state[f"{place}.self_attn.in_proj_weight"] = block.attention.query_key_value.weight
            state[f"{place}.self_attn.in_proj_bias"] = block.attention.query_key_value.bias
            named = {"self_attn.out_proj": block.attention.output}
            norms = [block.attention_norm, block.feed_forward_norm]
            if side == "decoder":
                cross = block.cross_attention
                for part in ("weight", "bias"):
                    parts = [getattr(cross.query, part), getattr(cross.key_value, part)]
                    state[f"{place}.multihead_attn.in_proj_{part}"] = torch.cat(parts)
                named["multihead_attn.out_proj"] = cross.output
                norms.insert(1, block.cross_attention_norm)
            named |= {"linear1": block.feed_forward.up, "linear2": block.feed_forward.down}
            named |= {f"norm{index + 1}": norm for index, norm in enumerate(norms)}
            for name, module in named.items():
                state |= {f"{place}.{name}.{part}": getattr(module, part) for part in ("weight", "bias")}
        final = getattr(network, f"{side}_norm")
        state |= {f"{side}.norm.{part}": getattr(final, part) for part in ("weight", "bias")}
    twin.load_state_dict({name: weight.detach().clone() for name, weight in state.items()})
    return twin.train()  # evaluation takes torch's fused path, which has no gradients; dropout is 0


def torchs_output(twin: nn.Transformer, network: Transformer) -> Tensor:
    source, mask, target = batch()
    embed = [network._embed(ids, network.target_embedding, None, 0).detach() for ids in (source, target)]
    return twin(
        *embed,
        tgt_mask=torch.ones(6, 6, dtype=torch.bool).triu(1),
        src_key_padding_mask=~mask,
        memory_key_padding_mask=~mask,
    )


@pytest.mark.parametrize("norm_place", ["post", "pre"])
def test_outputs_and_gradients_are_those_of_torchs_transformer(norm_place: str) -> None:
    network = small(norm_place=norm_place, final_norms=True, attention_bias=True)
    twin = torchs_twin(network)
    source, mask, target = batch()
    found, expected = network.hidden(source, mask, target), torchs_output(twin, network)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(4))
    (found * weights).mean().backward()
    (expected * weights).mean().backward()
    pairs = [
        (network.encoder[0].attention.query_key_value, twin.encoder.layers[0].self_attn, "in_proj_"),
        (network.decoder[0].attention.query_key_value, twin.decoder.layers[0].self_attn, "in_proj_"),
        (network.encoder[1].feed_forward.up, twin.encoder.layers[1].linear1, ""),
        (network.decoder[0].cross_attention.output, twin.decoder.layers[0].multihead_attn.out_proj, ""),
        (network.encoder_norm, twin.encoder.norm, ""),
        (network.decoder[1].feed_forward_norm, twin.decoder.layers[1].norm3, ""),
    ]
    for ours, theirs, prefix in pairs:
        for part in ("weight", "bias"):
            gradient, reference = getattr(ours, part).grad, getattr(theirs, prefix + part).grad
            assert reference.abs().max() > 1e-6
            torch.testing.assert_close(gradient, reference, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("wrong", [{"norm_place": "pre"}, {"activation": "gelu"}, {"heads": 2}, {"positions": "none"}])
def test_the_comparison_with_torch_notices_one_wrong_choice(wrong: dict[str, Any]) -> None:
    network = small(final_norms=True, attention_bias=True)
    other = small(**({"final_norms": True, "attention_bias": True} | wrong))
    other.load_state_dict(network.state_dict(), strict=False)
    source, mask, target = batch()
    expected = torchs_output(torchs_twin(network), network)
    torch.testing.assert_close(network.hidden(source, mask, target), expected, atol=1e-5, rtol=0)
    assert (other.hidden(source, mask, target) - expected).abs().max() > 1e-2


# -- masks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm_place", ["post", "pre"])
def test_padded_sources_give_what_they_give_alone(norm_place: str) -> None:
    network = small(norm_place=norm_place)
    source, mask, target = batch()
    together = network(source, mask, target)
    blind = network(source, torch.ones_like(mask), target)
    for number, row in enumerate(ROWS):
        ids, real = pad_rows([row], 3)
        alone = network(ids, real, target[number : number + 1])[0]
        torch.testing.assert_close(together[number], alone, atol=1e-5, rtol=0)
        assert ((blind[number] - alone).abs().max() > 1e-2) == (len(row) < source.shape[1])


def test_the_decoder_sees_no_later_token_and_the_encoder_does() -> None:
    network = small()
    source, mask, target = batch()
    changed = target.clone()
    changed[:, 4] = (changed[:, 4] + 1) % 40
    difference = (network(source, mask, changed) - network(source, mask, target)).abs().amax(dim=(0, 2))
    assert torch.equal(difference[:4], torch.zeros(4)) and (difference[4:] > 1e-3).all()
    other = source.clone()
    other[2, 6] = 20
    moved = (network.encode(other, mask).states_bsd - network.encode(source, mask).states_bsd)[2].abs().amax(dim=-1)
    assert (moved > 1e-4).all()


def test_attention_to_the_source_sums_to_one_and_never_falls_on_pads() -> None:
    network = small()
    source, mask, target = batch()
    weights = network.attention(source, mask, target)
    assert [tuple(each.shape) for each in weights] == [(3, 4, 6, 7)] * 2
    for each in weights:
        torch.testing.assert_close(each.sum(-1), torch.ones(3, 4, 6))
        assert float((each.detach() * ~mask[:, None, None]).max()) == 0.0


# -- positions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("positions", ["none", "sinusoidal", "learned"])
def test_only_without_positions_does_the_encoder_commute_with_permutations(positions: str) -> None:
    network = small(positions=positions)
    source, mask = pad_rows([ROWS[2]], 3)
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    states, shuffled = network.encode(source, mask).states_bsd, network.encode(source[:, order], mask).states_bsd
    assert torch.allclose(shuffled, states[:, order], atol=1e-5) == (positions == "none")


@pytest.mark.parametrize("offset", [1, 7])
def test_the_sinusoid_of_a_later_place_is_a_rotation_of_an_earlier_one(offset: int) -> None:
    width, count = 16, 40
    table = sinusoidal_table(count + offset, width, torch.device("cpu")).double()
    turn = torch.zeros(width, width, dtype=torch.float64)
    for pair in range(width // 2):
        angle = torch.tensor(offset * 10_000.0 ** (-2 * pair / width), dtype=torch.float64)
        cosine, sine = angle.cos(), angle.sin()
        turn[2 * pair : 2 * pair + 2, 2 * pair : 2 * pair + 2] = torch.tensor([[cosine, sine], [-sine, cosine]])
    torch.testing.assert_close(table[:count] @ turn.T, table[offset:], atol=1e-5, rtol=0)
    learned = torch.randn(count + offset, width, dtype=torch.float64)
    best = torch.linalg.lstsq(learned[:count], learned[offset:]).solution  # no linear map at all does it
    assert (learned[:count] @ best - learned[offset:]).abs().max() > 0.5


def test_the_two_orders_of_sinusoids_hold_the_same_numbers() -> None:
    paper, marian = (make(20, 16, torch.device("cpu")) for make in (sinusoidal_table, sinusoidal_halves_table))
    assert torch.equal(paper.sort(dim=1).values, marian.sort(dim=1).values) and not torch.equal(paper, marian)
    assert torch.equal(marian[:, :8], paper[:, 0::2]) and torch.equal(marian[:, 8:], paper[:, 1::2])


# -- a token at a time ------------------------------------------------------------------------------------------------

VARIANTS: list[dict[str, Any]] = [
    {},
    {"norm_place": "pre", "positions": "sinusoidal_halves"},
    {"positions": "learned", "tied_embeddings": "none", "output_bias": True, "scaled_embeddings": False},
    {"positions": "none", "attention_bias": True, "decoder_layers": 1},
]


@pytest.mark.parametrize("changes", VARIANTS)
def test_a_step_gives_the_last_position_of_forward(changes: dict[str, Any]) -> None:
    network = small(**changes)
    source, mask, target = batch()
    expected = network(source, mask, target)
    state = network.start(network.encode(source, mask), watch=True)
    for place in range(target.shape[1]):
        torch.testing.assert_close(network.step(target[:, place], state), expected[:, place], atol=1e-4, rtol=0)
        assert state.attention_rs is not None
        cross = network.attention(source, mask, target)[-1].mean(dim=1)[:, place]
        torch.testing.assert_close(state.attention_rs, cross, atol=1e-5, rtol=0)


@pytest.mark.parametrize("reordered", [True, False])
def test_beams_that_change_places_need_their_caches_to_change_places(reordered: bool) -> None:
    network = small()
    source, mask, target = batch()
    state = network.start(network.encode(source, mask), beams=2)
    first = torch.stack((target, target.flip(0)), dim=1).flatten(0, 1)  # (6, t): two hypotheses a sentence
    for place in range(3):
        network.step(first[:, place], state)
    order = torch.tensor([1, 1, 5, 4])  # the second sentence is done; the third one's beams change places
    if reordered:
        state.reorder(order)
    else:
        state.reorder(torch.tensor([0, 1, 4, 5]))
    found = network.step(first[order, 3], state)
    history = first[order, :4]
    sentences = order // 2
    expected = network(source[sentences], mask[sentences], history)[:, -1]
    assert torch.allclose(found, expected, atol=1e-4) == reordered


def test_the_cache_grows_to_the_models_limit_and_no_further() -> None:
    network = small(most_tokens=70)
    source, mask, _ = batch()
    target = torch.randint(4, 40, (3, 70), generator=torch.Generator().manual_seed(5))
    expected = network(source, mask, target)
    state = network.start(network.encode(source, mask))
    for place in range(70):
        found = network.step(target[:, place], state)
    torch.testing.assert_close(found, expected[:, -1], atol=1e-4, rtol=0)
    with pytest.raises(GenerationError, match="71 tokens is longer than the model's 70"):
        network.step(target[:, 0], state)


# -- what GPT left out ------------------------------------------------------------------------------------------------


def parts(block: nn.Module) -> set[str]:
    return {name for name, _ in block.named_children()}


def test_gpt_is_the_decoder_without_its_cross_attention() -> None:
    decoder_block, encoder_block = small().decoder[0], small().encoder[0]
    assert parts(decoder_block) - parts(encoder_block) == {"cross_attention", "cross_attention_norm"}
    shape = {"width": 16, "heads": 4, "head_width": 4, "key_value_heads": 4, "feed_forward_width": 24, "gated": False}
    gpt = Decoder(DecoderConfig(vocabulary_size=40, norm="layer", **shape))  # type: ignore[arg-type]
    assert not [name for name, _ in gpt.named_modules() if "cross" in name]
    assert parts(gpt.blocks[0]) - {"dropout"} == parts(encoder_block)
    assert not hasattr(gpt, "encoder") and [name for name, _ in small().named_modules() if "cross" in name]


# -- the rest ---------------------------------------------------------------------------------------------------------


def test_the_start_follows_from_the_seed_and_has_logits_of_about_unit_size() -> None:
    config = TransformerConfig(vocabulary_size=500, width=128, encoder_layers=2, decoder_layers=2)
    torch.manual_seed(1)
    first = Transformer(config).initialise(7)
    second = Transformer(config).initialise(7)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    third = Transformer(config).initialise(8)
    assert not torch.equal(first.head.weight, third.head.weight)
    source, mask, target = batch()
    assert 0.5 < float(first.eval()(source, mask, target).detach().std()) < 2.0


def test_dropout_acts_in_training_alone() -> None:
    network = small(dropout=0.5, attention_dropout=0.2, activation_dropout=0.2)
    source, mask, target = batch()
    assert torch.equal(network(source, mask, target), network(source, mask, target))
    network.train()
    assert not torch.equal(network(source, mask, target), network(source, mask, target))


@pytest.mark.parametrize("output_bias", [False, True])
def test_losses_are_torchs_cross_entropy_with_and_without_smoothing(output_bias: bool) -> None:
    network = small(output_bias=output_bias)
    source, mask, target = batch()
    hidden, weights = network.hidden(source, mask, target[:, :-1]), torch.ones(3, 5)
    weights[1, 2:] = 0.0
    logits, targets = network.logits(hidden).flatten(0, 1), target[:, 1:].flatten()
    for smoothing in (0.0, 0.1):
        each = nn.functional.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
        total, losses = network.next_token_losses(hidden, target[:, 1:], weights, smoothing)
        torch.testing.assert_close(total, (each * weights.flatten()).sum(), atol=1e-4, rtol=0)
        plain = nn.functional.cross_entropy(logits, targets, reduction="none").view(3, 5) * weights
        torch.testing.assert_close(losses, plain.detach(), atol=1e-5, rtol=0)


def test_what_is_too_long_is_refused() -> None:
    network = small(most_tokens=6)
    source, mask, target = batch()
    with pytest.raises(GenerationError, match="a source of 7 tokens is longer than the model's 6"):
        network(source, mask, target)
    with pytest.raises(GenerationError, match="a target of 7 tokens"):
        network(source[:, :5], mask[:, :5], torch.ones(3, 7, dtype=torch.long))


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"heads": 3}, "heads"),
        ({"width": 0}, "width"),
        ({"dropout": 1.0}, "dropout"),
        ({"end_id": 3}, "end_id"),
        ({"pad_id": 40}, "pad_id"),
        ({"norm_epsilon": 0.0}, "norm_epsilon"),
        ({"vocabulary_size": -1}, "vocabulary_size"),
    ],
)
def test_impossible_shapes_are_refused_by_name(changes: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TransformerConfig(**(SMALL | changes))
    assert caught.value.where == where


def test_a_mapping_makes_the_config() -> None:
    assert build(TransformerConfig, {"width": 32, "norm_place": "pre"}).has_final_norms
    with pytest.raises(ConfigError, match="norm_place"):
        build(TransformerConfig, {"norm_place": "behind"})
