"""GGUF files as the gguf package reads them: settings, tokens, numbers, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from duihua.errors import BundleError, DuihuaError
from duihua.models.bundle import Bundle, load_bundle, save_bundle
from duihua.models.config import DecoderConfig, RopeScaling
from duihua.models.decoder import Decoder
from duihua.models.heads import ScoredDecoder
from duihua.models.interop.gguf import export_gguf, pairs_from_halves
from duihua.models.interop.gguf_tokenizer import tokenizer_facts
from duihua.models.model_card import ModelCard
from duihua.text.tokenizer import Tokenizer

gguf = pytest.importorskip("gguf")

GPT: dict[str, Any] = {
    "positions": "learned",
    "norm": "layer",
    "query_key_norm": "none",
    "gated": False,
    "attention_bias": True,
    "feed_forward_bias": True,
    "tied_embeddings": True,
    "activation": "gelu_tanh",
    "key_value_heads": 4,
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["你好 hello hello 你好"] * 3, 265)


def bundle_of(tokenizer: Tokenizer, directory: Path, *, reward: bool = False, **fields: Any) -> Bundle:
    shape: dict[str, Any] = {"width": 64, "layers": 2, "head_width": 16, "feed_forward_width": 96, "context": 64}
    decoder = Decoder(DecoderConfig(vocabulary_size=270, **shape | fields)).initialise(1)
    network = ScoredDecoder(decoder).initialise_score(2) if reward else decoder
    terms = [
        {"name": "one", "licence": "CC0", "language": "zh"},
        {"name": "two", "licence": "MIT", "language": "en", "note": "注意"},
    ]
    save_bundle(directory, network, tokenizer, ModelCard("A", "sft", terms=terms))
    return load_bundle(directory)


def fields_of(file: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in gguf.GGUFReader(file).fields.items()}


def test_settings_tokens_and_terms_are_in_the_file(tokenizer: Tokenizer, tmp_path: Path) -> None:
    bundle = bundle_of(tokenizer, tmp_path / "in", rope_theta=5e5)
    export_gguf(bundle, tmp_path / "small.gguf", "f16")
    found = fields_of(tmp_path / "small.gguf")
    assert found["general.architecture"] == "qwen3" and found["general.name"] == "small"
    assert found["qwen3.rope.freq_base"] == 5e5 and found["qwen3.context_length"] == 64
    assert found["qwen3.attention.head_count_kv"] == 2 and found["qwen3.attention.key_length"] == 16
    assert (found["tokenizer.ggml.model"], found["tokenizer.ggml.pre"]) == ("gpt2", "qwen2")
    assert found["tokenizer.ggml.eos_token_id"] == found["tokenizer.ggml.eot_token_id"] == tokenizer.im_end_id
    assert found["tokenizer.ggml.padding_token_id"] == tokenizer.pad_id
    assert found["tokenizer.ggml.add_bos_token"] is False
    assert found["tokenizer.chat_template"] == tokenizer.chat_template
    assert len(found["tokenizer.ggml.tokens"]) == len(found["tokenizer.ggml.token_type"]) == 270
    assert found["tokenizer.ggml.token_type"][:5] == [3, 3, 3, 3, 1]
    assert found["tokenizer.ggml.token_type"][265:] == [5] * 5
    assert found["general.license"] == "CC0; MIT" and "注意" in found["duihua.terms"]
    assert found["general.languages"] == ["en", "zh"]


def test_the_numbers_are_ours_and_small_forms_take_the_room_they_say(tokenizer: Tokenizer, tmp_path: Path) -> None:
    bundle = bundle_of(tokenizer, tmp_path / "in")
    bounds = {"f32": 0.0, "f16": 1e-3, "bf16": 4e-3, "q8_0": 5e-3}  # of the largest number in the matrix
    sizes = {}
    for form, bound in bounds.items():
        written = export_gguf(bundle, tmp_path / f"{form}.gguf", form)
        assert written.bytes == (tmp_path / f"{form}.gguf").stat().st_size
        assert written.parameters == sum(p.numel() for p in bundle.network.parameters())
        tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / f"{form}.gguf").tensors}
        wanted = bundle.policy.get_parameter("blocks.1.feed_forward.up.weight").detach().numpy()
        tensor = tensors["blk.1.ffn_up.weight"]
        found = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(wanted.shape)
        assert np.abs(found - wanted).max() <= bound * np.abs(wanted).max()
        assert tensors["blk.1.attn_norm.weight"].tensor_type.name == "F32"
        sizes[form] = sum(int(tensor.n_bytes) for tensor in tensors.values())
    assert sizes["f16"] == sizes["bf16"] and 1.9 < sizes["f32"] / sizes["f16"] < 2.1
    assert 3.4 < sizes["f32"] / sizes["q8_0"] < 4


def test_a_matrix_whose_rows_are_no_multiple_of_32_stays_f16(tokenizer: Tokenizer, tmp_path: Path) -> None:
    written = export_gguf(bundle_of(tokenizer, tmp_path / "in", feed_forward_width=100), tmp_path / "x.gguf", "q8_0")
    tensors = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "x.gguf").tensors}
    assert tensors["blk.0.ffn_down.weight"] == "F16" and tensors["blk.0.ffn_up.weight"] == "Q8_0"
    assert written.forms["F16"] == 2


def test_pairs_from_halves_by_hand() -> None:
    rows = torch.arange(8.0)[:, None]  # two heads of width 4: halves (0 1 | 2 3), (4 5 | 6 7)
    assert pairs_from_halves(rows, 2).flatten().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert pairs_from_halves(rows.flatten(), 2).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (GPT | {"norm_place": "post", "final_norm": False, "feed_forward_width": 256}, r"GPT-1's norms.*gpt2 shape"),
        ({"value_embeddings": True}, r"no architecture for this shape.*value_embeddings.*duihua serve"),
        ({"activation": "gelu"}, "computes qwen3 with silu, this one has gelu"),
        ({"attention_bias": True}, "qwen3 has no biases in attention"),
        (GPT | {"activation": "gelu"}, "computes gpt2 with gelu_tanh, this one has gelu"),
        ({"rope_scaling": RopeScaling("dynamic", 2.0, 32)}, "rotary scaling of kind dynamic"),
        ({"rope_scaling": RopeScaling("yarn", 2.0, 32, attention_factor=1.3)}, "an attention factor"),
        ({"rope_scaling": RopeScaling("llama3", 2.0, 32)}, "llama models only"),
    ],
)
def test_what_llama_cpp_computes_otherwise_is_refused(
    tokenizer: Tokenizer, tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        export_gguf(bundle_of(tokenizer, tmp_path / "in", **fields), tmp_path / "x.gguf", "f32")
    assert [file.name for file in tmp_path.iterdir()] == ["in"]


def test_a_reward_bundle_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="reward bundle gives scores"):
        export_gguf(bundle_of(tokenizer, tmp_path / "in", reward=True), tmp_path / "x.gguf", "f32")


def test_a_tokenizer_whose_pattern_llama_cpp_does_not_know_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    file = tmp_path / "tokenizer.json"
    known = file.read_text()
    assert tokenizer_facts(Tokenizer.load(tmp_path), 265).pre == "qwen2"
    file.write_text(known.replace(r"|\\p{N}|", r"|\\p{N}{1,2}|"))
    with pytest.raises(BundleError, match="a way of cutting text"):
        tokenizer_facts(Tokenizer.load(tmp_path), 265)


def test_gpt2s_own_tokenizer_is_known_by_name(gpt2_vocabulary: Path, tmp_path: Path) -> None:
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((gpt2_vocabulary / name).read_bytes())
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    facts = tokenizer_facts(Tokenizer.load(tmp_path), 50_304)
    assert facts.pre == "gpt-2" and len(facts.merges) == 50_000 and facts.merges[0] == "Ġ t"
    assert (facts.end_id, facts.begin_id, facts.kinds[50_256]) == (50_256, 50_256, 3)
    assert facts.chat_template is None and any("no chat template" in note for note in facts.notes)


def test_an_output_that_cannot_be_written_is_named_and_leaves_nothing(tokenizer: Tokenizer, tmp_path: Path) -> None:
    bundle = bundle_of(tokenizer, tmp_path / "in")
    (tmp_path / "file").write_text("")
    with pytest.raises(DuihuaError, match="cannot write"):
        export_gguf(bundle, tmp_path / "file" / "x.gguf", "f32")


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    bundle = bundle_of(tokenizer, tmp_path / "in")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1 << 20})())
    with pytest.raises(DuihuaError, match="MiB of disk"):
        export_gguf(bundle, tmp_path / "x.gguf", "f32")
    assert [file.name for file in tmp_path.iterdir()] == ["in"]
