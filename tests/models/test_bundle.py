from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from duihua.errors import BundleError
from duihua.files import sha256_file
from duihua.models.bundle import Normalisation, load_bundle, save_bundle
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder, parameter_count
from duihua.models.heads import ScoredDecoder
from duihua.models.model_card import ModelCard, merge_terms
from duihua.models.weights import weights_fingerprint
from duihua.text.tokenizer import Tokenizer

TERMS = [
    {"name": "wiki", "language": "en", "licence": "CC BY-SA 4.0", "homepage": "https://example.org", "note": "a | b"},
    {"name": "law", "language": "zh", "licence": "public", "homepage": "", "attribution": "the state", "note": ""},
]
CARD = ModelCard(title="A model", stage="sft", terms=TERMS, metrics={"bits": {"en": 1.5}, "curve": [1, 2]})


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["你好 hello hello 你好"] * 3, 265)


def decoder(tokenizer: Tokenizer, **changes: Any) -> Decoder:
    shape = {"width": 16, "layers": 2, "heads": 2, "key_value_heads": 1, "head_width": 8, "feed_forward_width": 24}
    config = DecoderConfig(**({"vocabulary_size": tokenizer.vocabulary_size, "context": 32} | shape | changes))
    network = Decoder(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    return network


@pytest.fixture
def bundle(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    save_bundle(tmp_path / "b", decoder(tokenizer), tokenizer, CARD)
    return tmp_path / "b"


def edit_config(directory: Path, **changes: Any) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | changes))


def edit_weights(directory: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(directory / "model.safetensors")
    change(weights)
    save_file(weights, directory / "model.safetensors")


def refused(directory: Path, match: str) -> None:
    with pytest.raises(BundleError, match=match) as caught:
        load_bundle(directory)
    assert str(directory) in str(caught.value)


@pytest.mark.parametrize("tied", [False, True])
def test_what_is_saved_is_loaded(tokenizer: Tokenizer, tmp_path: Path, tied: bool) -> None:
    network = decoder(tokenizer, tied_embeddings=tied)
    save_bundle(tmp_path / "b", network, tokenizer, CARD)
    found = load_bundle(tmp_path / "b")
    assert found.kind == "policy" and found.config == network.config and found.policy is found.network
    assert found.tokenizer.fingerprint == tokenizer.fingerprint and found.stop_ids == (2, 0)
    assert found.terms == sorted(TERMS, key=lambda terms: terms["name"])
    ours, theirs = network.state_dict(), found.policy.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (found.policy.head.weight is found.policy.embedding.weight) == tied
    assert parameter_count(found.policy) == parameter_count(network)
    assert all(weight.requires_grad for weight in found.policy.parameters())


def test_a_reward_bundle_keeps_score_and_normalisation(tokenizer: Tokenizer, tmp_path: Path) -> None:
    network = ScoredDecoder(decoder(tokenizer)).initialise_score(3)
    save_bundle(tmp_path, network, tokenizer, CARD, normalisation=Normalisation(-0.5, 2.0))
    found = load_bundle(tmp_path)
    ids = torch.arange(20).view(2, 10)
    assert found.kind == "reward" and found.normalisation == Normalisation(-0.5, 2.0)
    assert torch.equal(found.reward(ids), network(ids))
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    with pytest.raises(BundleError, match="reward model"):
        _ = found.policy


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_smaller_dtypes_are_stored_and_read_back_as_float32(tokenizer: Tokenizer, tmp_path: Path, dtype: str) -> None:
    network = decoder(tokenizer)
    save_bundle(tmp_path, network, tokenizer, CARD, dtype)
    stored = load_file(tmp_path / "model.safetensors")
    assert {str(weight.dtype) for weight in stored.values()} == {f"torch.{dtype}"}
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == dtype
    weight = load_bundle(tmp_path).policy.head.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, network.head.weight.to(getattr(torch, dtype)).float())


def test_the_same_network_gives_the_same_files(tokenizer: Tokenizer, tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_bundle(tmp_path / name, decoder(tokenizer), tokenizer, CARD)
    for file in sorted((tmp_path / "a").iterdir()):
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name
    assert len(list((tmp_path / "a").iterdir())) == 7


def test_saving_over_a_bundle_leaves_other_files_and_no_remains(tokenizer: Tokenizer, bundle: Path) -> None:
    (bundle / "metrics.jsonl").write_text("{}")
    (bundle / ".bundle.1.part").mkdir()
    (bundle / ".bundle.1.part" / "model.safetensors").write_bytes(b"of a process that was killed")
    save_bundle(bundle, decoder(tokenizer, width=8), tokenizer, CARD)
    assert load_bundle(bundle).config.width == 8
    assert (bundle / "metrics.jsonl").read_text() == "{}"
    assert not [file for file in [*bundle.iterdir(), *bundle.parent.iterdir()] if file.name.endswith(".part")]


def test_a_kill_while_replacing_never_mixes_two_bundles(
    tokenizer: Tokenizer, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: Path, target: Path) -> Path:
        if self.name == "tokenizer.json":
            raise KeyboardInterrupt
        os.rename(self, target)
        return target

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save_bundle(bundle, decoder(tokenizer, width=8), tokenizer, CARD)
    refused(bundle, r"has no config\.json")


def test_the_card_lists_terms_and_metrics(bundle: Path) -> None:
    card = (bundle / "README.md").read_text(encoding="utf-8")
    assert "| [wiki](https://example.org) | en | CC BY-SA 4.0 |  | a \\| b |" in card
    assert "| law | zh | public | the state |  |" in card
    assert "| bits.en | 1.5 |" in card and "curve" not in card


def test_terms_are_joined_by_name() -> None:
    merged = merge_terms(TERMS, [{"name": "alpaca"}, {"name": "wiki", "licence": "another"}])
    assert [terms["name"] for terms in merged] == ["alpaca", "law", "wiki"]
    assert merged[-1]["licence"] == "CC BY-SA 4.0"


def test_a_bundle_without_tokenizer_loads_and_raises_when_text_is_used(bundle: Path) -> None:
    (bundle / "tokenizer.json").unlink()
    found = load_bundle(bundle)
    assert found.stop_ids == (2, 0)  # of generation_config.json
    assert found.policy(torch.tensor([[1, 2]])).shape == (1, 2, 265)
    with pytest.raises(BundleError, match=r"no tokenizer\.json"):
        found.tokenizer.encode("a")


def test_all_missing_tensors_are_named_at_once(bundle: Path) -> None:
    gone = ["model.layers.1.self_attn.q_norm.weight", "model.norm.weight"]
    edit_weights(bundle, lambda weights: [weights.pop(name) for name in gone])
    refused(bundle, f"2 tensors are missing: {', '.join(gone)}")


def test_a_wrong_shape_is_named_with_both_shapes(bundle: Path) -> None:
    edit_config(bundle, intermediate_size=25)
    refused(
        bundle, r"mlp\.(down|gate)_proj\.weight has shape \((16, 24|24, 16)\), config\.json expects \((16, 25|25, 16)"
    )


def test_the_same_wrong_shape_in_many_layers_is_one_short_clause(tmp_path: Path, tokenizer: Tokenizer) -> None:
    save_bundle(tmp_path, decoder(tokenizer, layers=5), tokenizer, CARD)
    edit_config(tmp_path, intermediate_size=25)
    with pytest.raises(BundleError) as caught:
        load_bundle(tmp_path)
    assert str(caught.value).count("(5 times) has shape") == 3  # down, gate and up
    assert "model.layers.*.mlp.down_proj.weight (5 times) has shape (16, 24), config.json expects (16, 25)" in str(
        caught.value
    )


def test_tensors_without_a_place_are_refused(bundle: Path) -> None:
    edit_weights(bundle, lambda weights: weights.update({"model.layers.0.self_attn.q_proj.bias": torch.ones(16)}))
    refused(bundle, r"q_proj\.bias, for which a Qwen3 decoder has no place")


def test_a_broken_weight_file_is_named(bundle: Path) -> None:
    file = bundle / "model.safetensors"
    whole = file.read_bytes()
    for broken in (whole[:-100], whole[:20], b"", b"\xff" * 64):
        file.write_bytes(broken)
        refused(bundle, r"model\.safetensors: broken safetensors file")


def test_a_pickle_is_refused_with_the_reason(bundle: Path) -> None:
    (bundle / "model.safetensors").rename(bundle / "pytorch_model.bin")
    refused(bundle, r"only as pickle \(pytorch_model\.bin\), which can run any program")


def test_a_missing_shard_is_named(bundle: Path) -> None:
    (bundle / "model.safetensors").unlink()
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (bundle / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(bundle, r"missing: model-00001-of-00002\.safetensors")
    index["weight_map"]["model.norm.weight"] = "../secret.safetensors"
    (bundle / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(bundle, "not a file of this directory")


def test_weights_in_several_files_have_a_fingerprint_of_all(bundle: Path) -> None:
    whole = weights_fingerprint(bundle)
    assert whole == sha256_file(bundle / "model.safetensors")
    weights = load_file(bundle / "model.safetensors")
    (bundle / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, held in parts.items():
        save_file({name: weights[name] for name in held}, bundle / file)
    index = {"weight_map": {name: file for file, held in parts.items() for name in held}}
    (bundle / "model.safetensors.index.json").write_text(json.dumps(index))
    first = weights_fingerprint(bundle)
    save_file({name: weights[name] + 1 for name in names[1::2]}, bundle / "model-2.safetensors")
    assert len({whole, first, weights_fingerprint(bundle)}) == 3


def test_a_tokenizer_larger_than_the_embedding_is_refused(bundle: Path) -> None:
    Tokenizer.train(["你好 hello hello world 你好 world"] * 3, 270).save(bundle)
    refused(bundle, "the tokenizer has 270 ids, the embedding 265 rows")


def test_a_bundle_of_another_version_is_refused(bundle: Path) -> None:
    edit_config(bundle, duihua={"format": 2, "version": "9.1"})
    refused(bundle, r"written by duihua 9\.1.*Install the duihua that wrote it \(9\.1\)")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"model_type": "mamba"}, r"model_type is 'mamba' \(Qwen3ForCausalLM\), and only qwen3, llama, gpt2"),
        ({"model_type": "llama"}, "architecture 'Qwen3ForCausalLM' is not read, only LlamaForCausalLM"),
        ({"model_type": "duihua"}, "model_type is 'duihua'"),
        ({"architectures": ["Qwen3Model"]}, "architecture 'Qwen3Model' is not read"),
        ({"hidden_size": None}, "hidden_size: expected a whole number, found nothing"),
        ({"hidden_size": "16"}, "hidden_size: expected a whole number, found '16'"),
        ({"num_attention_heads": 3, "num_key_value_heads": 2}, "cannot share"),
        ({"attention_bias": True}, r"8 tensors are missing: model\.layers\.0\.self_attn\.k_proj\.bias, .*v_proj\.bias"),
        ({"hidden_act": "softplus"}, "another activation 'softplus'"),
        ({"use_sliding_window": True}, "sliding-window"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ({"rope_parameters": {"rope_type": "longrope", "factor": 4.0}}, "rotary positions of type 'longrope'"),
        ({"rope_parameters": None, "rope_scaling": {"type": "su", "factor": 2.0}}, "of type 'su'"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "rope_parameters factor: expected a number, found nothing"),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "differ from layer to layer"),
        ({"partial_rotary_factor": 0.5}, "rotating a part of each head"),
        ({"quantization_config": {"bits": 4}}, "quantised weights"),
        (
            {"hidden_size": None, "hidden_act": "softplus", "vocab_size": 2.5},
            "vocab_size: .*; hidden_size: .*; hidden_act",
        ),
        ({"duihua": {"format": 1, "training": {"residual_dropout": 2}}}, r"residual_dropout must be in \[0, 1\)"),
    ],
)
def test_what_this_decoder_cannot_be_is_named(bundle: Path, changes: dict[str, Any], match: str) -> None:
    edit_config(bundle, **changes)
    refused(bundle, match)


def test_broken_or_missing_json_is_named(bundle: Path) -> None:
    (bundle / "config.json").write_text('{"a": 1,}')
    refused(bundle, r"config\.json:1:\d+: broken JSON")
    (bundle / "config.json").write_text("[]")
    refused(bundle, "expected a JSON object")
    refused(bundle / "nowhere", "no such directory")


@pytest.mark.parametrize("old", [True, False])
def test_both_ways_of_writing_the_rotary_base_are_read(bundle: Path, old: bool) -> None:
    rope = {"rope_type": "default", "rope_theta": 1e6}
    changes = {"rope_parameters": None, "rope_theta": 1e6} if old else {"rope_parameters": rope, "rope_theta": None}
    edit_config(bundle, **changes)
    assert load_bundle(bundle).config.rope_theta == 1e6


def test_of_a_run_the_bundles_inside_are_named(bundle: Path) -> None:
    refused(bundle.parent, rf"has no config\.json\. Name what is inside it: {bundle}")
    (bundle / "config.json").unlink()
    refused(bundle.parent, r"has no config\.json\. Name a bundle")  # control
