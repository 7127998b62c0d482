"""Adapters in PEFT's format, held against peft itself: ours read there, theirs read here, equal logits both ways."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from duihua.errors import BundleError
from duihua.models.adapters import CONFIG, ORIGIN, WEIGHTS, load_adapter, save_adapter
from duihua.models.bundle import ModelCard, load_bundle, save_bundle
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder
from duihua.nn.lora import adapters, add_lora, lora_parameters, merge_lora
from duihua.nn.lora_config import LoraConfig
from duihua.text.tokenizer import Tokenizer

IDS = torch.arange(30).view(2, 15) * 7 % 270
TERMS = [{"name": "a source", "licence": "CC-BY-4.0"}]

GPT: dict[str, Any] = {
    "positions": "learned", "norm": "layer", "norm_epsilon": 1e-5, "query_key_norm": "none", "gated": False,
    "activation": "gelu_tanh", "attention_bias": True, "feed_forward_bias": True, "tied_embeddings": True,
    "key_value_heads": 2, "feed_forward_width": 128,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "llama": {"query_key_norm": "none"},
    "gpt2": GPT,
    "gpt1": GPT | {"norm_place": "post", "final_norm": False},
    "fast": {"gated": False, "activation": "relu_squared", "value_embeddings": True, "residual_scalars": True},
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["say something here", "user assistant system"] * 4, 270)


@pytest.fixture(scope="module")
def base(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A random bundle of each family, made once."""
    folder = tmp_path_factory.mktemp("bases")

    def make(family: str, seed: int = 0) -> Path:
        directory = folder / f"{family}-{seed}"
        if not directory.exists():
            shape = {"width": 32, "layers": 2, "heads": 2, "key_value_heads": 1, "head_width": 16}
            config = DecoderConfig(270, **{**shape, "feed_forward_width": 48, "context": 32, **FAMILIES[family]})
            network = Decoder(config).initialise(seed)
            shake(network, 0.15, seed)
            save_bundle(directory, network, tokenizer, ModelCard(title="base", stage="pretrain"))
        return directory

    return make


def shake(network: torch.nn.Module, scale: float, seed: int = 1, only_adapters: bool = False) -> None:
    """Random matrices (or only As and Bs)."""
    generator = torch.Generator().manual_seed(seed)
    weights = lora_parameters(network) if only_adapters else dict(network.named_parameters())
    with torch.no_grad():
        for weight in weights.values():
            if weight.ndim == 2:
                weight.copy_(torch.randn(weight.shape, generator=generator) * scale)


def trained(directory: Path, config: LoraConfig) -> Decoder:
    """The base with random adapters."""
    network = load_bundle(directory).policy
    add_lora(network, config, seed=0)
    shake(network, 0.3, only_adapters=True)
    return network


def logits(network: Any) -> Tensor:
    with torch.no_grad():
        found = network.eval()(IDS)
    result: Tensor = found if isinstance(found, Tensor) else found.logits
    return result


def theirs(directory: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager"
    )


CASES = [
    ("qwen3", LoraConfig(rank=4, alpha=6.0)),
    ("qwen3", LoraConfig(rank=4, alpha=6.0, rank_stabilised=True, targets=("attention.query", "feed_forward.down"))),
    ("llama", LoraConfig(rank=2)),
    ("gpt2", LoraConfig(rank=4, alpha=6.0)),
    ("gpt2", LoraConfig(rank=3, alpha=5.0, rank_stabilised=True, targets=("attention.value", "attention.output"))),
    ("gpt1", LoraConfig(rank=4, alpha=6.0)),
]


@pytest.mark.parametrize(("family", "config"), CASES)
def test_peft_reads_ours_with_equal_logits(
    base: Callable[[str], Path], tmp_path: Path, family: str, config: LoraConfig
) -> None:
    peft = pytest.importorskip("peft")
    network = trained(base(family), config)
    save_adapter(tmp_path, network, config, base=base(family))
    wrapped = peft.PeftModel.from_pretrained(theirs(base(family)), tmp_path)
    expected = logits(network)
    assert float((expected - logits(load_bundle(base(family)).policy)).abs().max()) > 0.5
    assert torch.allclose(logits(wrapped), expected, atol=1e-4)
    assert torch.allclose(logits(wrapped.merge_and_unload()), expected, atol=1e-4)

    settings = json.loads((tmp_path / CONFIG).read_text())  # negative control: another scale
    (tmp_path / CONFIG).write_text(json.dumps(settings | {"lora_alpha": 60.0, "alpha_pattern": {}}))
    assert not torch.allclose(
        logits(peft.PeftModel.from_pretrained(theirs(base(family)), tmp_path)), expected, atol=1e-2
    )


def test_peft_loads_the_base_that_ours_names(base: Callable[[str], Path], tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    config = LoraConfig(rank=2)
    network = trained(base("qwen3"), config)
    save_adapter(tmp_path, network, config, base=base("qwen3"))
    assert torch.allclose(logits(peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path)), logits(network), atol=1e-4)


@pytest.mark.parametrize(
    ("family", "targets", "more"),
    [
        ("qwen3", ["q_proj", "v_proj", "down_proj"], {}),
        ("llama", "all-linear", {"use_rslora": True}),
        (
            "qwen3",
            ["q_proj", "up_proj"],
            {"rank_pattern": {"q_proj": 7}, "alpha_pattern": {r"layers\.1\..*q_proj": 3.0}},
        ),
        ("qwen3", ["o_proj"], {"layers_to_transform": [1]}),
        ("gpt2", ["c_attn", "mlp.c_proj"], {"fan_in_fan_out": True}),
        ("gpt1", ["c_attn"], {"fan_in_fan_out": True}),
    ],
)
def test_ours_reads_pefts_with_equal_logits(
    base: Callable[[str], Path], tmp_path: Path, family: str, targets: Any, more: dict[str, Any]
) -> None:
    peft = pytest.importorskip("peft")
    settings = peft.LoraConfig(r=4, lora_alpha=10, target_modules=targets, task_type="CAUSAL_LM", **more)
    wrapped = peft.get_peft_model(theirs(base(family)), settings)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
    wrapped.save_pretrained(tmp_path)
    network = load_bundle(base(family)).policy
    before = logits(network)
    load_adapter(network, tmp_path)
    expected = logits(wrapped)
    assert float((expected - before).abs().max()) > 0.1
    assert torch.allclose(logits(network), expected, atol=1e-4)
    merge_lora(network)
    assert torch.allclose(logits(network), expected, atol=1e-4)

    changed = json.loads((tmp_path / CONFIG).read_text())  # negative control: another scale
    (tmp_path / CONFIG).write_text(json.dumps(changed | {"lora_alpha": 1, "alpha_pattern": {}}))
    again = load_bundle(base(family)).policy
    load_adapter(again, tmp_path)
    assert not torch.allclose(logits(again), expected, atol=1e-2)


@pytest.mark.parametrize("family", ["qwen3", "gpt2", "fast"])
def test_ours_reads_ours(base: Callable[[str], Path], tmp_path: Path, family: str) -> None:
    config = LoraConfig(rank=4)
    network = trained(base(family), config)
    save_adapter(tmp_path, network, config, base=base(family), stage="sft", terms=TERMS)
    other = load_bundle(base(family)).policy
    found = load_adapter(other, tmp_path)
    assert (found.stage, found.terms, found.base) == ("sft", TERMS, str(base(family)))
    assert torch.allclose(logits(other), logits(network), atol=1e-5)
    if family != "gpt2":  # there the fused adapter has the ranks of its three parts together
        mine, stored = lora_parameters(network), lora_parameters(other)
        assert mine.keys() == stored.keys()
        assert all(torch.equal(mine[name], stored[name]) for name in mine)


def test_the_file_has_pefts_names_and_nothing_else(base: Callable[[str], Path], tmp_path: Path) -> None:
    config = LoraConfig(rank=4, targets=("attention.query", "feed_forward.up"))
    save_adapter(tmp_path, trained(base("qwen3"), config), config, base=base("qwen3"))
    with safe_open(tmp_path / WEIGHTS, framework="pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    prefix = "base_model.model.model.layers.0"
    assert len(shapes) == 2 * 2 * 2
    assert shapes[f"{prefix}.self_attn.q_proj.lora_A.weight"] == (4, 32)
    assert shapes[f"{prefix}.mlp.up_proj.lora_B.weight"] == (48, 4)
    settings = json.loads((tmp_path / CONFIG).read_text())
    assert settings["target_modules"] == ["q_proj", "up_proj"]
    assert (settings["r"], settings["lora_alpha"], settings["peft_type"]) == (4, 16.0, "LORA")
    assert Path(settings["base_model_name_or_path"]) == base("qwen3")


def test_fused_modules_are_named_so_that_peft_finds_no_other(base: Callable[[str], Path], tmp_path: Path) -> None:
    config = LoraConfig(rank=2, targets=("attention",))
    save_adapter(tmp_path, trained(base("gpt2"), config), config, base=base("gpt2"))
    settings = json.loads((tmp_path / CONFIG).read_text())
    assert settings["target_modules"] == ["c_attn", "attn.c_proj"]
    assert settings["rank_pattern"] == {"c_attn": 6}
    assert settings["alpha_pattern"] == {"c_attn": 48.0}, "48 / 6 is 16 / 2"
    assert settings["fan_in_fan_out"] is True


# -- what does not fit ------------------------------------------------------------------------------------------------


@pytest.fixture
def stored(base: Callable[[str], Path], tmp_path: Path) -> Path:
    config = LoraConfig(rank=4, targets=("attention.query",))
    save_adapter(tmp_path / "adapter", trained(base("qwen3"), config), config, base=base("qwen3"))
    return tmp_path / "adapter"


def refused(directory: Path, base: Path) -> str:
    network = load_bundle(base).policy
    with pytest.raises(BundleError) as caught:
        load_adapter(network, directory)
    assert not list(adapters(network)), "nothing was changed"
    return str(caught.value)


def test_an_adapter_of_another_base_is_refused(base: Any, stored: Path) -> None:
    assert "other weights than this model's" in refused(stored, base("qwen3", seed=1))
    assert "qwen3-0" in refused(stored, base("qwen3", seed=1)), "the remedy names the base"


def as_from_elsewhere(stored: Path, change: Callable[[dict[str, Tensor]], None] = lambda tensors: None) -> None:
    """Without what only ours says, and with other tensors."""
    (stored / ORIGIN).unlink(missing_ok=True)
    tensors = load_file(stored / WEIGHTS)
    change(tensors)
    save_file(tensors, stored / WEIGHTS)


def test_an_adapter_of_another_family_or_shape_is_refused(base: Callable[[str], Path], stored: Path) -> None:
    as_from_elsewhere(stored)
    assert "q_proj" in refused(stored, base("gpt2"))

    def widen(tensors: dict[str, Tensor]) -> None:
        name = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"
        tensors[name] = torch.zeros(4, 33)

    as_from_elsewhere(stored, widen)
    message = refused(stored, base("qwen3"))
    assert "layers.1.self_attn.q_proj.lora_A has shape (4, 33), this model needs (4, 32)" in message


def test_half_an_adapter_is_refused(base: Callable[[str], Path], stored: Path) -> None:
    def drop(tensors: dict[str, Tensor]) -> None:
        del tensors["base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"]

    as_from_elsewhere(stored, drop)
    assert "layers.0.self_attn.q_proj has lora_A alone" in refused(stored, base("qwen3"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"peft_type": "IA3"}, "only 'LORA' is read"),
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "trained biases"),
        ({"modules_to_save": ["score"]}, "whole modules"),
        ({"init_lora_weights": "pissa"}, "'pissa'"),
    ],
)
def test_what_would_be_computed_wrongly_is_refused(
    base: Callable[[str], Path], stored: Path, change: dict[str, Any], said: str
) -> None:
    settings = json.loads((stored / CONFIG).read_text())
    (stored / CONFIG).write_text(json.dumps(settings | change))
    assert said in refused(stored, base("qwen3"))


def test_broken_folders_are_refused(base: Callable[[str], Path], stored: Path, tmp_path: Path) -> None:
    assert "no such directory" in refused(tmp_path / "nowhere", base("qwen3"))
    (stored / WEIGHTS).write_bytes(b"no tensors")
    assert "broken safetensors" in refused(stored, base("qwen3"))
    (stored / WEIGHTS).unlink()
    assert f"has no {WEIGHTS}" in refused(stored, base("qwen3"))
    (stored / "adapter_model.bin").write_bytes(b"")
    assert "pickle" in refused(stored, base("qwen3"))
    (stored / CONFIG).write_text("[]")
    assert "expected a JSON object" in refused(stored, base("qwen3"))
    (stored / CONFIG).write_text("{")
    assert "broken JSON" in refused(stored, base("qwen3"))
    shutil.rmtree(stored)
    stored.mkdir()
    assert f"has no {CONFIG}" in refused(stored, base("qwen3"))
