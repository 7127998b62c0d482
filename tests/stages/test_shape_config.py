"""The shape of pre-training: a preset with single fields put over it."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path

import pytest

from duihua.config import build, field_help, load_yaml
from duihua.errors import ConfigError
from duihua.models.config import DecoderConfig
from duihua.models.presets import preset
from duihua.stages.configs.pretrain import PretrainConfig, ShapeConfig

RECIPES = Path(__file__).parents[2] / "recipes"


def test_without_a_preset_the_shape_is_qwen3s() -> None:
    assert ShapeConfig().decoder(640, 128) == DecoderConfig(vocabulary_size=640, context=128)
    assert ShapeConfig(width=64, heads=2, head_width=32, tied_embeddings=True).decoder(640, 128) == DecoderConfig(
        vocabulary_size=640, context=128, width=64, heads=2, head_width=32, tied_embeddings=True
    )


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (
            "tiny",
            {"width": 64, "layers": 2, "heads": 2, "key_value_heads": 1, "head_width": 32, "feed_forward_width": 176},
        ),
        ("quickstart", {"width": 192, "heads": 3, "key_value_heads": 1, "feed_forward_width": 512}),
    ],
)
def test_the_recipes_give_the_shapes_that_they_were_tuned_with(recipe: str, expected: dict[str, int]) -> None:
    stages = load_yaml(RECIPES / f"{recipe}.yaml")["stages"]
    config = build(PretrainConfig, next(stage["pretrain"] for stage in stages if "pretrain" in stage), "pretrain")
    made = config.shape.decoder(640, config.length)
    assert made == DecoderConfig(vocabulary_size=640, context=config.length, **expected)


def test_a_preset_and_single_fields() -> None:
    made = build(ShapeConfig, {"preset": "fast", "width": 192, "logit_soft_cap": 0.0}, "pretrain.shape").decoder(
        640, 64
    )
    assert made == preset("fast", vocabulary_size=640, context=64, width=192, logit_soft_cap=0.0)
    scaled = build(ShapeConfig, {"rope_scaling": {"kind": "linear", "factor": 2.0}}, "pretrain.shape").decoder(640, 64)
    assert scaled.rope_scaling is not None and scaled.rope_scaling.factor == 2.0


@pytest.mark.parametrize(
    ("mapping", "match"),
    [
        ({"preset": "fsat"}, r"pretrain\.shape\.preset: unknown preset 'fsat'. The nearest known name is 'fast'"),
        ({"heads": 3}, r"pretrain\.shape\.key_value_heads: 3 heads cannot share 2"),
        ({"widht": 3}, "The nearest known name is 'width'"),
        ({"norm": "batch"}, "input should be 'rms' or 'layer'"),
    ],
)
def test_an_impossible_shape_is_named_before_anything_runs(mapping: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        build(ShapeConfig, mapping, "pretrain.shape")


def test_every_field_of_the_decoder_can_be_set_and_has_help() -> None:
    decoder, shape = typing.get_type_hints(DecoderConfig), typing.get_type_hints(ShapeConfig)
    assert shape.keys() - {"preset"} == decoder.keys() - {"vocabulary_size", "context"}
    for name in decoder.keys() - {"vocabulary_size", "context"}:
        assert shape[name] == decoder[name] | None, name
    assert field_help(ShapeConfig).keys() == shape.keys()
    assert all(field.default is None for field in dataclasses.fields(ShapeConfig) if field.name != "preset")
