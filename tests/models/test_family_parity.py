"""Logits, loss and every gradient against transformers, for each family, at logits of a scale of about 6.

The scale matters: with the small logits of a fresh network a wrong epsilon or a missing norm would hide below the bound.
The same check must reject the faults that ports of these models really have; they stand at the end.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import duihua.nn.attention
from duihua.models.bundle import Bundle, load_bundle, save_bundle
from duihua.models.decoder import Block, Decoder
from duihua.models.heads import ScoredDecoder
from duihua.models.interop.registry import FAMILIES, tensor_layout
from duihua.models.model_card import ModelCard
from duihua.nn.norms import LayerNorm, RMSNorm
from duihua.text.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")

BOUND = 1e-4
IDS = torch.randint(0, 265, (3, 48), generator=torch.Generator().manual_seed(5))

GPT = {"vocab_size": 265, "n_positions": 64, "n_embd": 64, "n_layer": 3, "n_head": 4, "layer_norm_epsilon": 1e-5}
MODERN = {
    "vocab_size": 265,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 100,
    "max_position_embeddings": 64,
    "rope_parameters": {"rope_type": "default", "rope_theta": 50_000.0},
    "rms_norm_eps": 1e-6,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "openai-gpt": ("OpenAIGPT", GPT),
    "gpt2": ("GPT2", GPT | {"n_inner": 100}),
    "llama": ("Llama", MODERN),
    "llama-biased-tied": (
        "Llama",
        MODERN | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "head_dim": 24},
    ),
    "qwen3": ("Qwen3", MODERN | {"head_dim": 24}),
}
FINAL_NORMS = ("transformer.ln_f.", "model.norm.")
HEADS = {"OpenAIGPT": "OpenAIGPTLMHeadModel", "GPT2": "GPT2LMHeadModel"}


class Reference(NamedTuple):
    """What transformers computes, and the directory that it wrote in shards."""

    directory: Path
    logits: Tensor
    loss: float
    gradients: dict[str, Tensor]


def theirs(name: str, kind: str = "") -> Any:
    family, settings = MODELS[name]
    config = getattr(transformers, f"{family}Config")(**settings)
    return getattr(transformers, kind or HEADS.get(family, f"{family}ForCausalLM"))(config)


def randomise(network: nn.Module) -> None:
    """Every parameter random; small embeddings and biases, so that epsilon counts; logits with a deviation of about 6."""
    generator = torch.Generator().manual_seed(7)
    conv = {id(module.weight) for module in network.modules() if type(module).__name__ == "Conv1D"}
    with torch.no_grad():
        for name, weight in network.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if name.endswith("bias"):
                weight.copy_(0.02 * noise)
            elif weight.ndim == 1:
                weight.copy_(1 + 0.3 * noise)
            elif any(word in name for word in ("embed", "wte", "wpe")):
                weight.copy_(0.02 * noise)
            else:
                weight.copy_(noise * weight.shape[0 if id(weight) in conv else 1] ** -0.5)
        scale = 6.0 / float(network.eval()(IDS).logits.std())
        prefix = "transformer.h.2.ln_2." if isinstance(network, transformers.OpenAIGPTLMHeadModel) else FINAL_NORMS
        for name, weight in network.named_parameters():
            if name.startswith(prefix):
                weight.mul_(scale)


@pytest.fixture(scope="module", params=list(MODELS))
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    name: str = request.param
    network = theirs(name)
    randomise(network)
    directory = tmp_path_factory.mktemp(name)
    size = sum(weight.numel() * 4 for weight in network.parameters())
    network.save_pretrained(directory, max_shard_size=int(size / 2.6))
    assert len(list(directory.glob("model-*-of-*.safetensors"))) >= 3
    found = network.eval()(IDS, labels=IDS)
    found.loss.backward()
    gradients = {name: weight.grad for name, weight in network.named_parameters()}
    return Reference(directory, found.logits.detach(), float(found.loss.detach()), gradients)


def logits_of(network: Decoder) -> Tensor:
    with torch.no_grad():
        return network.eval()(IDS)


def differences(bundle: Bundle, reference: Reference) -> dict[str, float]:
    """The largest absolute difference of the logits, the loss and each tensor's gradient."""
    network = bundle.policy.eval()
    network.zero_grad()
    logits = network(IDS)
    hidden = network.hidden(IDS[:, :-1])
    total, _ = network.next_token_losses(hidden, IDS[:, 1:], torch.ones(3, 47))
    (total / (3 * 47)).backward()
    ours = dict(network.named_parameters(remove_duplicate=False))
    found = {
        "logits": float((logits - reference.logits).detach().abs().max()),
        "loss": abs(float(total.detach()) / (3 * 47) - reference.loss),
    }
    family = next(f for f in FAMILIES.values() if not f.reasons_against(bundle.config))
    places = tensor_layout(family, bundle.config, "policy")
    assert {place.name for place in places} == reference.gradients.keys()
    for place in places:
        gradients = [ours[name].grad for name in place.ours if name in ours]
        assert all(gradient is not None for gradient in gradients)
        if len(gradients) < len(place.ours):  # a faulty network that lacks a layer
            found[place.name] = math.inf
            continue
        whole = torch.cat([gradient for gradient in gradients if gradient is not None])
        expected = reference.gradients[place.name]
        assert float(expected.abs().max()) > 1e-5
        found[place.name] = float(((whole.t() if place.turned else whole) - expected).abs().max())
    return found


def test_logits_loss_and_all_gradients_are_those_of_transformers(reference: Reference) -> None:
    assert 5 < float(reference.logits.std()) < 7
    found = differences(load_bundle(reference.directory), reference)
    assert max(found.values()) < BOUND, {name: value for name, value in found.items() if value >= BOUND}


def test_ours_to_transformers_and_back_in_shards_is_bit_equal(reference: Reference, tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(["你好 hello hello 你好"] * 3, 265)
    first = load_bundle(reference.directory)
    save_bundle(tmp_path / "ours", first.policy, tokenizer, ModelCard(title="A model", stage="sft"))
    auto = transformers.AutoModelForCausalLM
    network, report = auto.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    assert network.generation_config.eos_token_id == [tokenizer.im_end_id, tokenizer.end_of_text_id]
    assert network.generation_config.pad_token_id == tokenizer.pad_id
    with torch.no_grad():
        assert float((network.eval()(IDS).logits - reference.logits).abs().max()) < BOUND
    network.save_pretrained(tmp_path / "theirs", max_shard_size="60KB")
    assert len(list((tmp_path / "theirs").glob("model-*.safetensors"))) >= 3
    again = load_bundle(tmp_path / "theirs")
    assert again.config == first.config
    before, after = first.policy.state_dict(), again.policy.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    changed = {name: weight + (1e-7 if weight.ndim > 1 else 0) for name, weight in after.items()}
    assert not all(torch.equal(before[name], changed[name]) for name in before)


def test_tensors_of_the_base_model_lack_the_prefix_and_are_read(reference: Reference, tmp_path: Path) -> None:
    network = transformers.AutoModelForCausalLM.from_pretrained(reference.directory)
    tied = network.config.tie_word_embeddings
    network.base_model.save_pretrained(tmp_path)
    names = load_file(tmp_path / "model.safetensors").keys()
    assert not any(name.startswith(("model.", "transformer.")) for name in names)
    if tied:
        assert torch.equal(logits_of(load_bundle(tmp_path).policy), logits_of(load_bundle(reference.directory).policy))
    else:
        with pytest.raises(Exception, match="has no head"):
            load_bundle(tmp_path)


def test_a_bfloat16_directory_loads_as_float32(reference: Reference, tmp_path: Path) -> None:
    transformers.AutoModelForCausalLM.from_pretrained(reference.directory, dtype=torch.bfloat16).save_pretrained(
        tmp_path
    )
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = again(IDS).logits
    assert float((logits_of(load_bundle(tmp_path).policy) - expected).abs().max()) < BOUND
    assert float((expected - reference.logits).abs().max()) > 10 * BOUND  # the rounding itself would be seen


@pytest.mark.parametrize("name", list(MODELS))
def test_reward_models_score_alike_both_ways(name: str, tmp_path: Path) -> None:
    family, settings = MODELS[name]
    tokenizer = Tokenizer.train(["你好 hello hello 你好"] * 3, 265)
    classes = getattr(transformers, f"{family}ForSequenceClassification")
    network = classes(getattr(transformers, f"{family}Config")(**settings, num_labels=1, pad_token_id=tokenizer.pad_id))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.1)
        network.score.weight.normal_(generator=generator)
    ids = IDS.clone().clamp(min=4)
    mask = torch.ones_like(ids)
    ids[1, 30:], mask[1, 30:] = tokenizer.pad_id, 0
    network.save_pretrained(tmp_path / "theirs")
    found = load_bundle(tmp_path / "theirs")
    save_bundle(tmp_path / "ours", found.reward, tokenizer, ModelCard(title="A model", stage="reward"))
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "ours")
    assert type(again) is classes and isinstance(found.network, ScoredDecoder)
    with torch.no_grad():
        scores = [model.eval()(ids, attention_mask=mask).logits[:, 0] for model in (network, again)]
        ours = found.reward.eval().last_score(ids, mask)
    assert float(scores[0].std()) > 0.1
    assert all(float((ours - score).abs().max()) < BOUND for score in scores)


# -- negative controls: each of these faults must fail the check above ---------------------------------------------------


def exact_gelu(network: Decoder, _: pytest.MonkeyPatch) -> None:
    for block in network.blocks:
        assert isinstance(block, Block)
        block.feed_forward.activation = nn.functional.gelu


def wrong_epsilon(network: Decoder, _: pytest.MonkeyPatch) -> None:
    for module in network.modules():
        if isinstance(module, RMSNorm | LayerNorm):
            module.epsilon = 1e-5 if module.epsilon == 1e-6 else 1e-6


def missing_final_norm(network: Decoder, _: pytest.MonkeyPatch) -> None:
    network.final_norm = nn.Identity()


def norm_before(network: Decoder, _: pytest.MonkeyPatch) -> None:
    for block in network.blocks:
        assert isinstance(block, Block)
        block.norm_after = not block.norm_after


def output_not_turned(network: Decoder, _: pytest.MonkeyPatch) -> None:
    """A square matrix that is read the wrong way round has the right shape."""
    for block in network.blocks:
        assert isinstance(block, Block)
        block.attention.output.weight.data = block.attention.output.weight.data.t().contiguous()


def query_and_key_exchanged(network: Decoder, _: pytest.MonkeyPatch) -> None:
    for block in network.blocks:
        assert isinstance(block, Block)
        block.attention.query, block.attention.key = block.attention.key, block.attention.query


def positions_from_one(network: Decoder, _: pytest.MonkeyPatch) -> None:
    assert network.position_embedding is not None
    network.position_embedding.weight.data = network.position_embedding.weight.data.roll(-1, 0)


def interleaved_rotary(network: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        cosine, sine = cosine[..., :half], sine[..., :half]
        even, odd = x[..., 0::2], x[..., 1::2]
        return torch.stack((even * cosine - odd * sine, odd * cosine + even * sine), dim=-1).flatten(-2)

    monkeypatch.setattr(duihua.nn.attention, "rotate", rotate)


def no_query_and_key_norm(network: Decoder, _: pytest.MonkeyPatch) -> None:
    for block in network.blocks:
        assert isinstance(block, Block)
        block.attention.query_norm = block.attention.key_norm = nn.Identity()


def wrong_rotary_base(network: Decoder, _: pytest.MonkeyPatch) -> None:
    other = Decoder(dataclasses.replace(network.config, rope_theta=10_000.0))
    network.cosine, network.sine = other.cosine, other.sine


Fault = Callable[[Decoder, pytest.MonkeyPatch], None]
GPT_FAULTS: list[Fault] = [exact_gelu, wrong_epsilon, norm_before, output_not_turned, positions_from_one]
MODERN_FAULTS: list[Fault] = [interleaved_rotary, wrong_epsilon, missing_final_norm, norm_before, wrong_rotary_base]
FAULTS: dict[str, list[Fault]] = {
    "OpenAIGPTLMHeadModel": [*GPT_FAULTS, query_and_key_exchanged],
    "GPT2LMHeadModel": [*GPT_FAULTS, query_and_key_exchanged, missing_final_norm],
    "LlamaForCausalLM": MODERN_FAULTS,
    "Qwen3ForCausalLM": [*MODERN_FAULTS, no_query_and_key_norm],
}


def test_the_same_check_rejects_each_fault(reference: Reference) -> None:
    architecture = transformers.AutoConfig.from_pretrained(reference.directory).architectures[0]
    for fault in FAULTS[architecture]:
        bundle = load_bundle(reference.directory)
        with pytest.MonkeyPatch.context() as monkeypatch:
            fault(bundle.policy, monkeypatch)
            found = differences(bundle, reference)
        assert found["logits"] >= BOUND and found["loss"] >= 1e-6, f"{fault.__name__} passed: {found}"
        assert sum(value >= BOUND for value in found.values()) > 5, f"{fault.__name__}: {found}"


def test_the_likeliest_tokens_alone_would_not_notice_the_exact_gelu(tmp_path: Path) -> None:
    network = theirs("gpt2")
    randomise(network)
    network.save_pretrained(tmp_path)
    bundle = load_bundle(tmp_path)
    right = logits_of(bundle.policy)
    exact_gelu(bundle.policy, pytest.MonkeyPatch())
    wrong = logits_of(bundle.policy)
    assert torch.equal(wrong.argmax(-1), right.argmax(-1))
    assert float((wrong - right).abs().max()) > 10 * BOUND
