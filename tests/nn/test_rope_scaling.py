"""The rotary frequencies of each kind of scaling against transformers' own functions, and by hand."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from duihua.models.config import DecoderConfig, RopeScaling
from duihua.models.rotary import fixed_tables, grown_tables
from duihua.nn import rope_scaling
from duihua.nn.positions import angle_tables, rotary_frequencies, sinusoidal_table

CPU = torch.device("cpu")
SCALINGS = {
    "linear": RopeScaling("linear", 4.0),
    "dynamic": RopeScaling("dynamic", 4.0, original_context=32),
    "llama3": RopeScaling("llama3", 8.0, original_context=32, low_frequency_factor=1.0, high_frequency_factor=4.0),
    "llama3-own": RopeScaling("llama3", 3.0, original_context=64, low_frequency_factor=0.5, high_frequency_factor=8.0),
    "yarn": RopeScaling("yarn", 4.0, original_context=32),
    "yarn-own": RopeScaling(
        "yarn", 2.5, original_context=64, beta_fast=16.0, beta_slow=2.0, attention_factor=1.3, truncate=False
    ),
    "yarn-mscale": RopeScaling("yarn", 4.0, original_context=32, mscale=0.7, mscale_all_dim=1.2),
}


def config(scaling: RopeScaling | None) -> DecoderConfig:
    return DecoderConfig(
        vocabulary_size=50, width=64, heads=2, head_width=32, context=128, rope_theta=1000.0, rope_scaling=scaling
    )


def of_transformers(scaling: RopeScaling, length: int) -> tuple[Tensor, Tensor]:
    transformers = pytest.importorskip("transformers")
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    settings: dict[str, Any] = {"rope_type": scaling.kind, "rope_theta": 1000.0, "factor": scaling.factor}
    if scaling.kind == "llama3":
        settings |= {"low_freq_factor": scaling.low_frequency_factor, "high_freq_factor": scaling.high_frequency_factor}
    if scaling.kind in ("llama3", "yarn"):
        settings["original_max_position_embeddings"] = scaling.original_context
    if scaling.kind == "yarn":
        names = ("beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim", "truncate")
        settings |= {name: getattr(scaling, name) for name in names if getattr(scaling, name) is not None}
    theirs = transformers.LlamaConfig(
        hidden_size=64,
        num_attention_heads=2,
        head_dim=32,
        max_position_embeddings=scaling.original_context if scaling.kind == "dynamic" else 128,
        rope_parameters=settings,
    )
    cosine, sine = LlamaRotaryEmbedding(theirs)(torch.zeros(1), torch.arange(length)[None])
    return cosine[0], sine[0]


def ours(scaling: RopeScaling, length: int) -> tuple[Tensor, Tensor]:
    if scaling.kind == "dynamic" and length > 32:
        cosine, sine = grown_tables(config(scaling), torch.arange(length)[None])
        return cosine[0], sine[0]
    cosine, sine = fixed_tables(config(scaling), CPU)
    return cosine[:length], sine[:length]


def difference(scaling: RopeScaling, other: RopeScaling, length: int) -> float:
    return max(
        float((a - b).abs().max()) for a, b in zip(ours(scaling, length), of_transformers(other, length), strict=True)
    )


@pytest.mark.parametrize("length", [20, 32, 128])
@pytest.mark.parametrize("name", list(SCALINGS))
def test_tables_are_those_of_transformers(name: str, length: int) -> None:
    assert difference(SCALINGS[name], SCALINGS[name], length) < 1e-4


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("linear", {"factor": 4.1}),
        ("dynamic", {"factor": 4.1}),
        ("llama3", {"high_frequency_factor": 3.0}),
        ("llama3", {"original_context": 40}),
        ("yarn", {"beta_fast": 2.0}),
        ("yarn", {"truncate": False}),
        ("yarn", {"attention_factor": 1.0}),
        ("yarn-mscale", {"mscale": 0.8}),
    ],
)
def test_the_same_check_rejects_another_setting(name: str, change: dict[str, Any]) -> None:
    assert difference(dataclasses.replace(SCALINGS[name], **change), SCALINGS[name], 128) > 1e-3


def test_linear_scaling_divides_the_places() -> None:
    frequencies = rotary_frequencies(8, 100.0, CPU)
    scaled, _ = angle_tables(torch.tensor([8.0]), rope_scaling.linear(frequencies, 4.0))
    plain, _ = angle_tables(torch.tensor([2.0]), frequencies)
    assert torch.allclose(scaled, plain)


def test_yarn_keeps_the_fastest_frequency_divides_the_slowest_and_warms_the_attention() -> None:
    frequencies = rotary_frequencies(64, 10_000.0, CPU)
    scaled = rope_scaling.yarn(frequencies, 10_000.0, 8.0, 4096)
    assert float(scaled[0]) == pytest.approx(1.0) and float(scaled[-1]) == pytest.approx(float(frequencies[-1]) / 8)
    assert rope_scaling.yarn_attention_factor(8.0) == pytest.approx(0.1 * math.log(8) + 1)
    assert rope_scaling.yarn_attention_factor(0.5) == 1.0


def test_llama3_by_hand() -> None:
    # Wavelengths 10, 50 and 400 over a context of 100: below 100/4 kept, above 100/1 divided, 50 between: s = (2-1)/3.
    frequencies = 2 * math.pi / torch.tensor([10.0, 50.0, 400.0])
    scaled = rope_scaling.llama3(frequencies, 8.0, 100)
    factors = (scaled / frequencies).tolist()
    assert factors == pytest.approx([1.0, (2 / 3) / 8 + 1 / 3, 1 / 8])


def test_dynamic_scaling_leaves_texts_within_the_original_context_alone_and_rows_of_a_batch_apart() -> None:
    bases = rope_scaling.dynamic_bases(1000.0, 32, 4.0, 32, torch.tensor([5, 32, 64]))
    assert bases[:2].tolist() == [1000.0, 1000.0]
    assert float(bases[2]) == pytest.approx(1000.0 * (4 * 2 - 3) ** (32 / 30), rel=1e-5)
    places = torch.stack((torch.arange(64), torch.arange(64).clamp(max=9)))
    cosine, _ = grown_tables(config(SCALINGS["dynamic"]), places)
    alone, _ = fixed_tables(config(None), CPU)
    assert torch.allclose(cosine[1, :10], alone[:10], atol=1e-5)
    assert not torch.allclose(cosine[0, :10], alone[:10], atol=1e-3)


def test_sinusoids_by_hand() -> None:
    table = sinusoidal_table(5, 5, CPU)
    for place in range(5):
        for column in range(5):
            angle = place / 10_000 ** ((column - column % 2) / 5)
            expected = math.cos(angle) if column % 2 else math.sin(angle)
            assert float(table[place, column]) == pytest.approx(expected, abs=1e-6)
