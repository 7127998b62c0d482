"""Which family holds which decoder, config.json both ways and in both spellings, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from duihua.errors import BundleError
from duihua.models.bundle import load_bundle, save_bundle
from duihua.models.config import DecoderConfig, RopeScaling
from duihua.models.decoder import Decoder
from duihua.models.heads import ScoredDecoder
from duihua.models.interop.registry import config_mapping, family_of, read_config, reasons_against
from duihua.models.model_card import ModelCard
from duihua.models.presets import PRESETS, preset
from duihua.text.tokenizer import Tokenizer

SMALL: dict[str, Any] = {
    "vocabulary_size": 265,
    "width": 32,
    "layers": 2,
    "heads": 4,
    "key_value_heads": 4,
    "head_width": 8,
    "feed_forward_width": 128,
    "context": 64,
}
CARD = ModelCard(title="A model", stage="pretrain")
YARN = RopeScaling("yarn", 2.0, original_context=32, beta_fast=4.0, attention_factor=1.1)
VARIANTS: dict[str, tuple[DecoderConfig, str]] = {
    "gpt1": (preset("gpt1", **SMALL), "openai-gpt"),
    "gpt2": (preset("gpt2", **SMALL), "gpt2"),
    "gpt2-untied": (preset("gpt2", **SMALL | {"feed_forward_width": 50}, tied_embeddings=False), "gpt2"),
    "llama": (preset("llama", **SMALL), "llama"),
    "llama-biased": (preset("llama", **SMALL, attention_bias=True, feed_forward_bias=True, activation="gelu"), "llama"),
    "qwen3": (preset("qwen3", **SMALL), "qwen3"),
    "qwen3-dropout": (preset("qwen3", **SMALL, residual_dropout=0.1, initialisation="normal"), "qwen3"),
    "yarn": (preset("qwen3", **SMALL, rope_scaling=YARN), "qwen3"),
    "llama3": (preset("llama", **SMALL, rope_scaling=RopeScaling("llama3", 2.0, original_context=16)), "llama"),
    "linear": (preset("llama", **SMALL, rope_scaling=RopeScaling("linear", 2.0)), "llama"),
    "dynamic": (preset("llama", **SMALL, rope_scaling=RopeScaling("dynamic", 2.0, original_context=32)), "llama"),
    "fast": (preset("fast", **SMALL), "duihua"),
    "post-norm": (preset("qwen3", **SMALL, norm_place="post", rope_scaling=YARN), "duihua"),
    "gpt1-narrow": (preset("gpt1", **SMALL | {"feed_forward_width": 50}), "duihua"),
    "gpt2-grouped": (preset("gpt2", **SMALL | {"key_value_heads": 2}), "duihua"),
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["你好 hello hello 你好"] * 3, 265)


def network(config: DecoderConfig) -> Decoder:
    made = Decoder(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in made.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2)
    return made


@pytest.mark.parametrize("name", list(VARIANTS))
@pytest.mark.parametrize("kind", ["policy", "reward"])
def test_what_is_saved_in_a_family_is_loaded_bit_for_bit(
    tokenizer: Tokenizer, tmp_path: Path, name: str, kind: str
) -> None:
    config, family = VARIANTS[name]
    assert family_of(config) == family and reasons_against(config, family) == []
    made: Decoder | ScoredDecoder = network(config)
    if kind == "reward":
        made = ScoredDecoder(network(config)).initialise_score(1)
    save_bundle(tmp_path, made, tokenizer, CARD)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == family
    found = load_bundle(tmp_path)
    assert found.config == config and found.kind == kind
    before, after = made.state_dict(), found.network.state_dict()
    assert before.keys() == after.keys()
    unread = {"decoder.head.weight"} if kind == "reward" else set()
    assert all(torch.equal(before[key], after[key]) for key in before.keys() - unread)
    ids = torch.arange(40)[None]
    assert torch.equal(made.eval()(ids), found.network(ids))


@pytest.mark.parametrize("name", ["yarn", "llama3", "linear", "dynamic", "qwen3", "gpt1", "gpt2", "llama-biased"])
def test_transformers_computes_the_same_at_the_full_context(tokenizer: Tokenizer, tmp_path: Path, name: str) -> None:
    transformers = pytest.importorskip("transformers")
    config = VARIANTS[name][0]
    made = network(config)
    with torch.no_grad():
        made.head.weight.mul_(10)
    save_bundle(tmp_path / "ours", made, tokenizer, CARD)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    ids = torch.randint(0, 265, (1, 64), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected, found = theirs(ids).logits, made.eval()(ids)
    assert float(expected.std()) > 2
    assert float((found - expected).abs().max()) < 1e-4
    theirs.save_pretrained(tmp_path / "theirs")
    again = load_bundle(tmp_path / "theirs")
    assert again.config == config
    with torch.no_grad():
        assert torch.equal(again.policy(ids), found)


def test_one_field_decides_the_family() -> None:
    base = preset("qwen3", **SMALL)
    for change in (
        {"positions": "learned"},
        {"norm": "layer"},
        {"final_norm": False},
        {"gated": False},
        {"value_embeddings": True},
        {"residual_scalars": True},
        {"logit_soft_cap": 30.0},
        {"query_key_norm": "plain"},
        {"feed_forward_bias": True},
        {"rope_scaling": RopeScaling("linear", 2.0, beta_fast=3.0)},
        {"rope_scaling": RopeScaling("dynamic", 2.0)},
    ):
        assert family_of(dataclasses.replace(base, **change)) == "duihua", change
        (reason,) = reasons_against(dataclasses.replace(base, **change), "qwen3")
        assert next(iter(change)) in reason
    fast = reasons_against(preset("fast"), "qwen3")
    assert fast == [
        "gated is False, Qwen3 has True",
        "value_embeddings is True, Qwen3 has False",
        "residual_scalars is True, Qwen3 has False",
        "logit_soft_cap is 15.0, Qwen3 has 0.0",
    ]


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_survives_its_config_json(name: str) -> None:
    config = preset(name)
    mapping = json.loads(json.dumps(config_mapping(config, "policy", "bfloat16")))
    assert read_config(mapping, "config.json")[0] == config
    assert mapping["dtype"] == mapping["torch_dtype"] == "bfloat16"


def test_only_what_training_alone_needs_stands_apart() -> None:
    plain = config_mapping(preset("qwen3", **SMALL), "policy", "float32")
    assert "duihua" not in plain
    apart = config_mapping(VARIANTS["qwen3-dropout"][0], "policy", "float32")["duihua"]
    assert apart == {"training": {"residual_dropout": 0.1, "initialisation": "normal"}}


LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 4096,
}


def read(**changes: Any) -> DecoderConfig:
    mapping = {key: value for key, value in (LLAMA | changes).items() if value is not None}
    return read_config(mapping, "config.json")[0]


def test_both_spellings_of_rotary_scaling_mean_the_same() -> None:
    numbers = {
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 1024,
    }
    new = read(rope_parameters={"rope_type": "llama3", "rope_theta": 500_000.0, **numbers})
    old = read(rope_theta=500_000.0, rope_scaling={"type": "llama3", **numbers})
    assert new == old
    assert new.rope_scaling == RopeScaling("llama3", 32.0, original_context=1024)
    assert new.rope_theta == 500_000.0 and read().rope_theta == 10_000.0
    assert read(rope_scaling={"rope_type": "default"}, rope_parameters=None).rope_scaling is None


def test_where_the_files_differ_the_numbers_are_those_of_transformers() -> None:
    assert read(num_key_value_heads=None).key_value_heads == 4 and read().head_width == 8
    top = read(original_max_position_embeddings=512, rope_scaling={"type": "yarn", "factor": 8.0})
    assert top.rope_scaling == RopeScaling("yarn", 8.0, original_context=512)
    without = read(rope_scaling={"type": "yarn", "original_max_position_embeddings": 512})
    assert without.rope_scaling == RopeScaling("yarn", 8.0, original_context=512)
    dynamic = read(rope_scaling={"type": "dynamic", "factor": 2.0})
    assert dynamic.context == 8192 and dynamic.rope_scaling == RopeScaling("dynamic", 2.0, original_context=4096)
    assert read(hidden_act="gelu_new").activation == read(hidden_act="gelu_pytorch_tanh").activation == "gelu_tanh"


def test_gpt2_is_read_with_the_keys_of_its_first_release_and_gpt1s_gelu_is_the_tanh_one() -> None:
    mapping = {"model_type": "gpt2", "vocab_size": 50257, "n_ctx": 1024, "n_positions": 1024}
    mapping |= {
        "n_embd": 768,
        "n_head": 12,
        "n_layer": 12,
        "layer_norm_epsilon": 1e-5,
        "activation_function": "gelu_new",
    }
    assert read_config(mapping, "config.json")[0] == preset("gpt2")
    mapping = {"model_type": "openai-gpt", "vocab_size": 40478, "n_ctx": 512, "n_positions": 512, "afn": "gelu"}
    mapping |= {"n_embd": 768, "n_head": 12, "n_layer": 12, "n_special": 0, "resid_pdrop": 0.1}
    assert read_config(mapping, "config.json")[0] == preset("gpt1")


@pytest.mark.parametrize(
    ("scaling", "match"),
    [
        ({"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": "512"}, "expected a whole number"),
        ({"rope_type": "yarn", "factor": -2.0}, r"rope_scaling\.factor must be positive"),
        ({"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 4.0}, "must be greater than low_frequency_factor"),
        ({"rope_type": ["yarn"]}, "are not supported"),
        ({"rope_type": "linear"}, "rope_parameters factor: expected a number, found nothing"),
        ("linear", "rope_scaling: expected an object"),
    ],
)
def test_broken_scaling_is_named(scaling: Any, match: str) -> None:
    with pytest.raises(BundleError, match=match):
        read(rope_scaling=scaling)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"scale_attn_weights": False}, r"scale_attn_weights: attention without the scale"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scaled by the layer's number"),
        ({"add_cross_attention": True}, "cross-attention"),
        ({"n_head": 5}, "32 cannot be split into 5 heads"),
        ({"activation_function": "mish", "add_cross_attention": True}, "cross-attention.*; .*'mish'"),
        (
            {"architectures": ["GPT2DoubleHeadsModel"]},
            "architecture 'GPT2DoubleHeadsModel' is not read, only GPT2LMHead",
        ),
        ({"model_type": "gpt_neox"}, "model_type is 'gpt_neox'"),
        ({"model_type": ["gpt2"]}, "model_type is"),
    ],
)
def test_what_gpt2_could_be_and_we_are_not_is_refused(
    tokenizer: Tokenizer, tmp_path: Path, changes: dict[str, Any], match: str
) -> None:
    save_bundle(tmp_path, network(VARIANTS["gpt2"][0]), tokenizer, CARD)
    edit(tmp_path, **changes)
    with pytest.raises(BundleError, match=match):
        load_bundle(tmp_path)


def edit(directory: Path, **changes: Any) -> None:
    mapping = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(mapping | changes))


@pytest.mark.parametrize(
    ("decoder", "match"),
    [
        (None, "the shape is missing under 'decoder'"),
        ({"vocabulary_size": 5, "widht": 3}, "decoder.widht: unknown key"),
        ({"vocabulary_size": 5, "norm": "batch"}, "decoder.norm: input should be 'rms' or 'layer'"),
        ({"vocabulary_size": 5, "heads": 3}, "cannot share"),
    ],
)
def test_a_broken_shape_of_ours_is_named(tokenizer: Tokenizer, tmp_path: Path, decoder: Any, match: str) -> None:
    save_bundle(tmp_path, network(VARIANTS["fast"][0]), tokenizer, CARD)
    edit(tmp_path, decoder=decoder)
    with pytest.raises(BundleError, match=match):
        load_bundle(tmp_path)


def test_buffers_are_passed_over_and_strangers_missing_and_misshapen_tensors_are_named_at_once(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    save_bundle(tmp_path, network(VARIANTS["gpt2"][0]), tokenizer, CARD)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    weights["transformer.h.0.attn.bias"] = torch.ones(1, 1, 64, 64)
    weights["transformer.h.1.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(weights, file)
    assert load_bundle(tmp_path).config == VARIANTS["gpt2"][0]
    weights["transformer.h.0.crossattention.c_attn.weight"] = torch.ones(3)
    weights["transformer.wpe.weight"] = torch.ones(63, 32)
    del weights["transformer.ln_f.bias"], weights["transformer.h.1.attn.c_attn.weight"]
    save_file(weights, file)
    with pytest.raises(BundleError) as caught:
        load_bundle(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: 2 tensors are missing: transformer.h.1.attn.c_attn.weight, transformer.ln_f.bias; "
        "transformer.wpe.weight has shape (63, 32), config.json expects (64, 32); "
        "holds transformer.h.0.crossattention.c_attn.weight, for which a GPT-2 decoder has no place. "
        "Fetch config.json and all weight files from the same place."
    )


def test_a_second_head_is_passed_over_only_where_it_is_the_embedding(tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_bundle(tmp_path, network(VARIANTS["gpt2"][0]), tokenizer, CARD)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    weights["lm_head.weight"] = weights["transformer.wte.weight"].clone()
    save_file(weights, file)
    load_bundle(tmp_path)
    weights["lm_head.weight"] += 1
    save_file(weights, file)
    with pytest.raises(BundleError, match=r"ties the head to the embedding, and lm_head\.weight is another matrix"):
        load_bundle(tmp_path)


def test_numbers_that_are_no_weights_are_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_bundle(tmp_path, network(VARIANTS["qwen3"][0]), tokenizer, CARD)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    weights["lm_head.weight"] = weights["lm_head.weight"].to(torch.int8)
    save_file(weights, file)
    with pytest.raises(BundleError, match=r"lm_head\.weight has numbers of type I8, read are F64, F32, F16, BF16"):
        load_bundle(tmp_path)


def test_a_pickle_is_refused_with_the_conversion_and_shards_without_index_too(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    save_bundle(tmp_path, network(VARIANTS["qwen3"][0]), tokenizer, CARD)
    (tmp_path / "model.safetensors").rename(tmp_path / "model-00001-of-00002.safetensors")
    with pytest.raises(BundleError, match=r"has weight files, but no model\.safetensors\.index\.json"):
        load_bundle(tmp_path)
    (tmp_path / "model-00001-of-00002.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(BundleError, match=r"weights_only=True\)\.save_pretrained"):
        load_bundle(tmp_path)


def test_loading_imports_no_compiler(tokenizer: Tokenizer, tmp_path: Path) -> None:
    import subprocess
    import sys

    save_bundle(tmp_path, network(VARIANTS["gpt2"][0]), tokenizer, CARD)
    program = (
        "import sys; from duihua.models.bundle import load_bundle; "
        f"load_bundle({str(tmp_path)!r}); assert 'torch._dynamo' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
