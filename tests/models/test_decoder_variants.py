"""Every variant of the decoder computed in several ways: cached, padded, checkpointed, capped; and its first weights."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from duihua.models.config import DecoderConfig, RopeScaling
from duihua.models.decoder import Block, Decoder, has_value_embedding
from duihua.models.presets import preset
from duihua.nn import losses

SMALL: dict[str, Any] = {
    "vocabulary_size": 97,
    "width": 32,
    "layers": 3,
    "heads": 4,
    "head_width": 8,
    "feed_forward_width": 48,
    "context": 40,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "gpt1": {"preset": "gpt1", "key_value_heads": 4},
    "gpt2": {"preset": "gpt2", "key_value_heads": 4},
    "llama": {"preset": "llama"},
    "qwen3": {"preset": "qwen3"},
    "fast": {"preset": "fast"},
    "fast-post": {"preset": "fast", "norm_place": "post"},
    "sinusoidal": {"preset": "qwen3", "positions": "sinusoidal"},
    "no-positions": {"preset": "qwen3", "positions": "none"},
    "plain-norm": {"preset": "qwen3", "query_key_norm": "plain"},
    "yarn": {"preset": "qwen3", "rope_scaling": RopeScaling("yarn", 2.0, original_context=20)},
    "llama3": {"preset": "llama", "rope_scaling": RopeScaling("llama3", 2.0, original_context=20)},
    "linear": {"preset": "qwen3", "rope_scaling": RopeScaling("linear", 2.0)},
    "dynamic": {"preset": "qwen3", "rope_scaling": RopeScaling("dynamic", 2.0, original_context=20)},
}


def config(name: str, **changes: Any) -> DecoderConfig:
    fields = {"key_value_heads": 2} | SMALL | VARIANTS[name] | changes
    return preset(**{"name" if key == "preset" else key: value for key, value in fields.items()})


def network(name: str, **changes: Any) -> Decoder:
    """A network with random weights in every place, also where they start at zero or one."""
    made = Decoder(config(name, **changes))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter, weight in made.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            plus_one = weight.ndim == 1 and not parameter.endswith("bias")
            weight.copy_(1 + 0.2 * noise if plus_one else 0.3 * noise)
    return made.eval()


def tokens(*shape: int) -> Tensor:
    return torch.randint(1, 97, shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", list(VARIANTS))
@torch.no_grad()
def test_cached_equals_uncached(name: str) -> None:
    made = network(name)
    length = 20  # the original context of the dynamic variant
    x = tokens(3, length)
    full = made(x)
    cache, rows = made.new_cache(5), torch.tensor([4, 0, 2])
    parts = [made(x[:, :9], positions_bt=torch.arange(9).expand(3, 9), cache=cache, rows_b=rows)]
    for t in range(9, length):
        parts.append(made(x[:, t : t + 1], positions_bt=torch.full((3, 1), t), cache=cache, rows_b=rows))
    assert (torch.cat(parts, dim=1) - full).abs().max() < 2e-4
    if name != "no-positions":
        wrong = made(x[:, -1:], positions_bt=torch.full((3, 1), length - 2), cache=cache, rows_b=rows)
        assert (wrong - full[:, -1:]).abs().max() > 1e-2


@torch.no_grad()
def test_beyond_its_original_context_a_dynamic_model_reads_a_whole_prompt_alike_with_and_without_cache() -> None:
    made = network("dynamic")
    x = tokens(2, 35)
    assert (made(x, cache=made.new_cache(2)) - made(x)).abs().max() < 2e-4
    fixed = network("qwen3")
    assert (made(x) - fixed(x)).abs().max() > 1e-2
    assert (made(x[:, :20]) - fixed(x[:, :20])).abs().max() < 1e-4


@pytest.mark.parametrize("name", list(VARIANTS))
@torch.no_grad()
def test_padded_equals_unpadded_on_either_side(name: str) -> None:
    made = network(name)
    x = tokens(1, 17)
    pad, ones = torch.zeros(1, 12, dtype=torch.long), torch.ones(1, 17, dtype=torch.long)
    left = made(torch.cat((pad, x), 1), attention_mask_bt=torch.cat((pad, ones), 1))[:, 12:]
    right = made(torch.cat((x, pad), 1), attention_mask_bt=torch.cat((ones, pad), 1))[:, :17]
    assert (left - made(x)).abs().max() < 2e-4 and (right - left).abs().max() < 2e-4
    if name != "no-positions":
        places = torch.arange(29)[None]
        mask = torch.cat((pad, ones), 1)
        unmoved = made(torch.cat((pad, x), 1), attention_mask_bt=mask, positions_bt=places)[:, 12:]
        rotary = made.config.positions == "rotary"  # only distances count there: moved by 12 all stays the same
        if not rotary:
            assert (unmoved - made(x)).abs().max() > 1e-2
    unmasked = made(torch.cat((pad, x), 1))[:, 12:]
    assert (unmasked - made(x)).abs().max() > 1e-2


def gradients(made: Decoder, x: Tensor, seed: int) -> tuple[float, dict[str, Tensor]]:
    made.zero_grad()
    torch.manual_seed(seed)
    hidden = made.hidden(x[:, :-1])
    total, _ = made.next_token_losses(hidden, x[:, 1:], torch.ones(x[:, 1:].shape))
    total.backward()
    return float(total.detach()), {name: w.grad.clone() for name, w in made.named_parameters() if w.grad is not None}


@pytest.mark.parametrize("name", ["gpt1", "gpt2", "qwen3", "fast", "fast-post", "dynamic"])
def test_checkpointed_equals_plain_with_dropout_too(name: str) -> None:
    dropouts = {"embedding_dropout": 0.1, "attention_dropout": 0.2, "residual_dropout": 0.3}
    made = network(name, **dropouts).train()
    x = tokens(2, 30)
    plain, expected = gradients(made, x, seed=5)
    made.gradient_checkpointing = True
    kept = sum(1 for _ in saved(made, x))
    checkpointed, found = gradients(made, x, seed=5)
    assert checkpointed == plain and found.keys() == expected.keys()
    for parameter, gradient in found.items():
        assert (gradient - expected[parameter]).abs().max() < 1e-4 * (1 + expected[parameter].abs().max()), parameter
    other, _ = gradients(made, x, seed=6)
    assert other != plain
    made.gradient_checkpointing = False
    assert kept < sum(1 for _ in saved(made, x)) / 3


def saved(made: Decoder, x: Tensor) -> list[Tensor]:
    """The tensors that autograd keeps for the backward pass."""
    found: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        made.hidden(x)
    return found


@pytest.mark.parametrize("cap", [0.0, 2.0])
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_the_chunked_loss_is_the_loss_of_the_logits(cap: float, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made = network("fast", logit_soft_cap=cap)
    x = tokens(2, 21)
    monkeypatch.setattr(losses, "CHUNK_ELEMENTS", {"cpu": 97 * chunk})
    value, found = gradients(made, x, seed=0)
    made.zero_grad()
    logits = made(x[:, :-1])
    plain = torch.nn.functional.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten(), reduction="sum")
    plain.backward()
    assert value == pytest.approx(float(plain.detach()), rel=1e-5)
    unshifted = torch.nn.functional.cross_entropy(logits.detach().flatten(0, 1), x[:, :-1].flatten(), reduction="sum")
    assert value != pytest.approx(float(unshifted), rel=1e-4)
    for name, weight in made.named_parameters():
        assert weight.grad is not None
        assert (weight.grad - found[name]).abs().max() < 1e-3 * (1 + weight.grad.abs().max()), name
    if cap:
        assert float(logits.detach().abs().max()) < cap
        uncapped = made.head(made.hidden(x[:, :-1])).flatten(0, 1)
        other = torch.nn.functional.cross_entropy(uncapped, x[:, 1:].flatten(), reduction="sum")
        assert abs(float(other.detach()) - value) > 1.0


def test_norms_stand_behind_the_addition_in_gpt1() -> None:
    made = network("gpt1")
    with torch.no_grad():
        hidden = made.hidden(tokens(2, 10))
        block = made.blocks[-1]
        assert isinstance(block, Block)
        normed = (hidden - block.feed_forward_norm.bias) / block.feed_forward_norm.weight
        assert normed.mean(-1).abs().max() < 1e-3 and (normed.var(-1, unbiased=False) - 1).abs().max() < 1e-2
        before = network("gpt1", norm_place="pre").hidden(tokens(2, 10))
    assert (before - hidden).abs().max() > 1e-2


@torch.no_grad()
def test_value_embeddings_and_residual_scalars_by_hand() -> None:
    made = network("fast", layers=1, positions="none", query_key_norm="none", residual_scalars=True)
    x = tokens(1, 1)  # one token looks at itself alone: attention gives its value
    block = made.blocks[0]
    assert isinstance(block, Block)
    assert block.residual_scalars is not None
    e = made.embedding(x)[0, 0]
    stream = block.residual_scalars.sum() * e
    attention = block.attention
    assert attention.value_embedding is not None and attention.value_gate is not None
    value = attention.value(block.attention_norm(stream)).view(2, 8)
    value = value + attention.value_gate[:, None] * attention.value_embedding(x)[0, 0].view(2, 8)
    stream = stream + attention.output(value.repeat_interleave(2, dim=0).flatten())
    hidden = torch.relu(block.feed_forward.up(block.feed_forward_norm(stream))) ** 2
    stream = stream + block.feed_forward.down(hidden)
    logits = made.head(made.final_norm(stream))
    assert torch.allclose(made(x)[0, 0], 15 * torch.tanh(logits / 15), atol=1e-4)
    assert not torch.allclose(made(x)[0, 0], logits, atol=1e-2)


def test_every_second_layer_counted_from_the_last_has_value_embeddings() -> None:
    for layers in (1, 2, 3, 4):
        made = dataclasses.replace(config("fast"), layers=layers)
        has = [has_value_embedding(made, layer) for layer in range(layers)]
        assert has == [(layers - 1 - layer) % 2 == 0 for layer in range(layers)]


def test_dropout_works_in_training_alone() -> None:
    x = tokens(1, 12)
    for field in ("embedding_dropout", "attention_dropout", "residual_dropout"):
        made = network("qwen3", **{field: 0.5})
        assert torch.equal(made(x), made(x)) and torch.allclose(made(x), network("qwen3")(x), atol=1e-5)
        made.train()
        assert not torch.allclose(made(x), made(x), atol=1e-2), field


def deviations(made: Decoder) -> dict[str, float]:
    return {name: float(weight.detach().std()) for name, weight in made.named_parameters() if weight.ndim > 1}


def test_the_three_ways_to_start() -> None:
    sizes = {"width": 64, "feed_forward_width": 256, "head_width": 16, "vocabulary_size": 500}
    normal = deviations(Decoder(config("gpt1", **sizes)).initialise(1))
    assert all(value == pytest.approx(0.02, rel=0.1) for value in normal.values()) and len(normal) == 2 + 3 * 6
    scaled = deviations(Decoder(config("gpt2", **sizes, initialiser_range=0.05)).initialise(1))
    for name, value in scaled.items():
        residual = name.endswith(("attention.output.weight", "feed_forward.down.weight"))
        assert value == pytest.approx(0.05 / 6**0.5 if residual else 0.05, rel=0.1), name
    zero = Decoder(config("fast", **sizes)).initialise(1)
    for name, value in deviations(zero).items():
        starts_at_zero = name.endswith(("output.weight", "down.weight", "value_embedding.weight"))
        assert (value == 0) == starts_at_zero, name
    for name, weight in zero.named_parameters():
        if name.endswith("residual_scalars"):
            assert weight.tolist() == [1.0, 0.0]
    biased = Decoder(config("gpt2")).initialise(1)
    assert all(not w.any() for name, w in biased.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize("name", ["gpt1", "gpt2", "fast"])
def test_first_losses_are_near_the_logarithm_of_the_vocabulary_and_fall(name: str) -> None:
    made = Decoder(config(name)).initialise(1).train()
    optimizer = torch.optim.AdamW(made.parameters(), 3e-3)
    x = tokens(4, 30)
    losses = []
    for _ in range(30):
        losses.append(gradients(made, x, seed=0)[0] / (4 * 29))
        optimizer.step()
    assert losses[0] == pytest.approx(4.57, abs=0.1)
    assert losses[-1] < losses[0] - 0.3
