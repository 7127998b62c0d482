from __future__ import annotations

import subprocess
import sys

import pytest

from duihua.errors import ConfigError
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder, parameter_count
from duihua.models.interop.registry import family_of
from duihua.models.presets import PRESETS, preset

# Published counts: of the papers or the makers' model cards, for the vocabulary of the published weights.
PARAMETERS = {
    "gpt1": 116_534_784,
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "llama-2-7b": 6_738_415_616,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200,
    "qwen3-32b": 32_762_123_264,
}


@pytest.mark.parametrize("name", list(PARAMETERS))
def test_published_shapes_have_the_published_number_of_parameters(name: str) -> None:
    import torch

    with torch.device("meta"):
        assert parameter_count(Decoder(preset(name, context=min(1024, preset(name).context)))) == PARAMETERS[name]


def test_gpt1_and_gpt2_by_hand() -> None:
    width, hidden = 768, 3072
    block = width * 3 * width + 3 * width + width * width + width + 2 * width * hidden + hidden + width + 4 * width
    assert 40_478 * width + 512 * width + 12 * block == PARAMETERS["gpt1"]
    assert 50_257 * width + 1024 * width + 12 * block + 2 * width == PARAMETERS["gpt2"]


def test_each_preset_belongs_to_the_family_of_its_name() -> None:
    families = {name: family_of(preset(name)) for name in PRESETS}
    own = {"gpt1": "openai-gpt", "fast": "duihua"}
    for name, family in families.items():
        assert family == own.get(name, name.split("-")[0]), name


def test_fields_are_put_over_a_preset() -> None:
    made = preset("gpt2", width=192, heads=3, key_value_heads=3)
    assert (made.width, made.heads, made.norm, made.context) == (192, 3, "layer", 1024)
    assert preset("qwen3") == DecoderConfig(vocabulary_size=8192)
    assert preset("gpt2") == preset("gpt2") and made != preset("gpt2")


@pytest.mark.parametrize(
    ("call", "match"),
    [
        ({"name": "gtp2"}, "unknown preset 'gtp2'. The nearest known name is 'gpt2'"),
        ({"name": "qwen3-0.5b"}, "The nearest known name is 'qwen3-0.6b'"),
        ({"name": "xyz"}, "Known here: gpt1, gpt2,"),
        ({"name": "gpt2", "widht": 3}, "unknown field 'widht'. The nearest known name is 'width'"),
        ({"name": "qwen3", "heads": 5}, "cannot share"),
    ],
)
def test_what_is_not_known_is_named(call: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        preset(**call)  # type: ignore[arg-type]


def test_every_preset_says_where_it_comes_from() -> None:
    for name, make in PRESETS.items():
        assert make.__doc__ and (
            "et al." in make.__doc__ or "speed runs" in make.__doc__ or "config.json" in make.__doc__
        )
        assert name == name.lower()


def test_presets_import_no_torch() -> None:
    program = "import sys, duihua.models.presets; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
