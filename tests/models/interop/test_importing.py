"""`duihua import`: what is found, what is refused, and that weights come through bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from duihua.errors import BundleError, ConfigError, DuihuaError
from duihua.models.bundle import load_bundle, save_bundle
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder
from duihua.models.interop.importing import check_directory, import_directory
from duihua.models.model_card import ModelCard
from duihua.text.chat_template import ChatTemplate
from duihua.text.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")

ROWS = 300
GPT: dict[str, Any] = {"vocab_size": ROWS, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 2}
LLAMA: dict[str, Any] = {
    "vocab_size": ROWS,
    "max_position_embeddings": 32,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
}
MODELS: dict[str, Callable[[], Any]] = {
    "gpt1": lambda: transformers.OpenAIGPTLMHeadModel(transformers.OpenAIGPTConfig(**GPT)),
    "gpt2": lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT)),
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA)),
    "qwen3": lambda: transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**LLAMA, head_dim=16)),
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["你好 hello hello 你好"] * 3, 265)


@pytest.fixture
def qwen3(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    """A directory as transformers writes it, with a tokenizer and a licence."""
    directory = tmp_path / "foreign"
    MODELS["qwen3"]().save_pretrained(directory)
    tokenizer.save(directory)
    (directory / "README.md").write_text("---\nlicense: apache-2.0\ntags: [a]\n---\n# A model\n", encoding="utf-8")
    (directory / "LICENSE").write_text(
        "  Apache License\n  Version 2.0\n\nCopyright 2025 The Makers\n", encoding="utf-8"
    )
    return directory


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", MODELS)
def test_every_family_that_transformers_writes_comes_through_bit_for_bit(
    tokenizer: Tokenizer, tmp_path: Path, family: str, dtype: torch.dtype
) -> None:
    theirs = MODELS[family]().to(dtype)
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="60KB")
    tokenizer.save(tmp_path / "theirs")
    found = import_directory(tmp_path / "theirs", tmp_path / "ours")
    assert found.family == family and found.dtype == str(dtype).removeprefix("torch.")
    assert found.weight_files == len(list((tmp_path / "theirs").glob("*.safetensors"))) > 1
    assert found.parameters == sum(p.numel() for p in theirs.parameters())
    before = {}
    for file in (tmp_path / "theirs").glob("*.safetensors"):
        before |= load_file(file)
    after = load_file(tmp_path / "ours" / "model.safetensors")
    assert before.keys() - set(found.left_out) == after.keys()
    assert all(torch.equal(after[name], before[name]) and after[name].dtype == dtype for name in after)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert type(again) is type(theirs)


def test_facts_licence_and_terms_are_found_and_carried(qwen3: Path, tmp_path: Path) -> None:
    found = import_directory(qwen3, tmp_path / "out", name="Foreign-1B")
    assert (found.family, found.architecture, found.context) == ("qwen3", "Qwen3ForCausalLM", 32)
    assert (found.vocabulary_rows, found.tokenizer_ids, found.chat_template) == (ROWS, 265, "its own")
    assert (found.licence, found.licence_files) == ("apache-2.0", ["LICENSE"])
    (terms,) = load_bundle(tmp_path / "out").terms
    assert terms["name"] == "Foreign-1B" and terms["licence"] == "apache-2.0"
    assert terms["attribution"] == "Copyright 2025 The Makers" and "Version 2.0" in terms["note"]
    assert (tmp_path / "out" / "LICENSE").read_text() == (qwen3 / "LICENSE").read_text()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Foreign-1B" in card and "apache-2.0" in card
    assert not list(tmp_path.glob(".*"))


def test_sampling_settings_of_the_model_are_kept(qwen3: Path, tmp_path: Path) -> None:
    (qwen3 / "generation_config.json").write_text(json.dumps({"temperature": 0.6, "top_k": 20, "eos_token_id": [2, 0]}))
    import_directory(qwen3, tmp_path / "out")
    kept = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert kept == {"eos_token_id": [2, 0], "pad_token_id": 3, "temperature": 0.6, "top_k": 20}


def test_check_writes_nothing(qwen3: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    check_directory(qwen3)
    assert sorted(tmp_path.rglob("*")) == before


def test_tables_that_are_no_parameters_are_left_out_by_name(tokenizer: Tokenizer, tmp_path: Path) -> None:
    MODELS["gpt2"]().save_pretrained(tmp_path / "in")
    weights = {name.removeprefix("transformer."): w for name, w in load_file(tmp_path / "in/model.safetensors").items()}
    weights["h.0.attn.bias"] = torch.ones(1, 1, 32, 32)  # as the first published files have them
    save_file(weights, tmp_path / "in/model.safetensors")
    found = import_directory(tmp_path / "in", tmp_path / "out")
    assert found.left_out == ["h.0.attn.bias"]
    assert "transformer.h.0.attn.c_attn.bias" in load_file(tmp_path / "out/model.safetensors")
    assert found.tokenizer.startswith("none: no tokenizer.json") and found.chat_template == "none"


# -- the chat template ------------------------------------------------------------------------------------------------


def without_template(directory: Path, **config: Any) -> None:
    (directory / "chat_template.jinja").unlink()
    file = directory / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))


def test_a_base_model_that_has_chatmls_tokens_gets_chatml_with_them(qwen3: Path, tmp_path: Path) -> None:
    without_template(qwen3)
    found = import_directory(qwen3, tmp_path / "out")
    assert found.chat_template == "ChatML with <|im_start|> and <|im_end|>"
    assert "<|im_start|>" in ChatTemplate(Tokenizer.load(tmp_path / "out")).source


def test_a_base_model_with_an_end_token_alone_gets_chatml_with_it(qwen3: Path, tmp_path: Path) -> None:
    text = (qwen3 / "tokenizer.json").read_text()
    for name in ("im_start", "im_end"):
        text = text.replace(f"<|{name}|>", f"<|other_{name}|>")
    (qwen3 / "tokenizer.json").write_text(text)
    without_template(qwen3, eos_token="<|endoftext|>")
    found = import_directory(qwen3, tmp_path / "out")
    assert found.chat_template == "ChatML with <|endoftext|> and <|endoftext|>"
    tokenizer = Tokenizer.load(tmp_path / "out")
    messages: Any = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    encoded = ChatTemplate(tokenizer).encode(messages)
    learnt = [id for id, kept in zip(encoded.ids, encoded.loss_mask, strict=True) if kept]
    assert tokenizer.decode(learnt, skip_special=False) == "b<|endoftext|>"
    assert tokenizer.stop_ids == (0,)


def test_a_template_file_or_none_can_be_asked_for(qwen3: Path, tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    assert import_directory(qwen3, tmp_path / "a", str(tmp_path / "own.jinja")).chat_template == "from own.jinja"
    assert (tmp_path / "a" / "chat_template.jinja").read_text() == (tmp_path / "own.jinja").read_text()
    found = import_directory(qwen3, tmp_path / "b", "none")
    assert not (tmp_path / "b" / "chat_template.jinja").exists()
    assert any("--chat-template FILE" in note for note in found.notes)
    with pytest.raises(ConfigError, match="no such file"):
        check_directory(qwen3, "absent.jinja")
    (tmp_path / "broken.jinja").write_text("{% for %}")
    with pytest.raises(BundleError, match="broken chat template"):
        check_directory(qwen3, str(tmp_path / "broken.jinja"))


# -- bad input --------------------------------------------------------------------------------------------------------


def change(directory: Path, **config: Any) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))


def test_an_unknown_architecture_is_named_with_those_that_are_known(qwen3: Path, tmp_path: Path) -> None:
    change(qwen3, model_type="mamba", architectures=["MambaForCausalLM"])
    with pytest.raises(BundleError, match=r"mamba.*MambaForCausalLM.*qwen3.*llama.*gpt2"):
        import_directory(qwen3, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_tensors_are_named_all_at_once(qwen3: Path) -> None:
    weights = load_file(qwen3 / "model.safetensors")
    gone = ["model.norm.weight", "model.layers.1.mlp.up_proj.weight", "model.layers.0.self_attn.q_norm.weight"]
    save_file({name: weight for name, weight in weights.items() if name not in gone}, qwen3 / "model.safetensors")
    with pytest.raises(BundleError) as caught:
        check_directory(qwen3)
    assert "3 tensors are missing" in str(caught.value)
    assert all(name in str(caught.value) for name in gone)


def test_a_wrong_shape_is_named_with_tensor_expected_and_found(qwen3: Path) -> None:
    weights = load_file(qwen3 / "model.safetensors")
    weights["model.layers.0.mlp.down_proj.weight"] = torch.zeros(32, 47)
    save_file(weights, qwen3 / "model.safetensors")
    with pytest.raises(BundleError, match=r"layers\.0\.mlp\.down_proj\.weight.*\(32, 47\).*\(32, 48\)"):
        check_directory(qwen3)


def test_a_tokenizer_that_is_larger_than_the_embedding_is_refused(qwen3: Path) -> None:
    Tokenizer.train(["".join(map(chr, range(0x4E00, 0x4F00))) * 2], 400).save(qwen3)
    with pytest.raises(BundleError, match="tokenizer has 400 ids, the embedding 300 rows"):
        check_directory(qwen3)


def test_weights_in_pickle_are_refused_with_the_safe_way_named(qwen3: Path, tmp_path: Path) -> None:
    (qwen3 / "model.safetensors").unlink()
    (qwen3 / "pytorch_model.bin").write_bytes(b"never opened")
    with pytest.raises(BundleError, match=r"pickle.*pytorch_model\.bin.*safetensors.*weights_only=True"):
        import_directory(qwen3, tmp_path / "out")


def test_a_pickle_beside_safetensors_is_not_opened(qwen3: Path) -> None:
    (qwen3 / "pytorch_model.bin").write_bytes(b"never opened")
    _, found = check_directory(qwen3)
    assert any("pytorch_model.bin" in note for note in found.notes)


def test_nothing_is_written_over(qwen3: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("kept")
    with pytest.raises(DuihuaError, match="there already"):
        import_directory(qwen3, tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_an_output_that_cannot_be_written_is_named(qwen3: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DuihuaError, match="cannot write"):
        import_directory(qwen3, tmp_path / "file" / "out")


def test_no_such_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such directory"):
        check_directory(tmp_path / "absent")


def test_a_bundle_of_ours_keeps_its_terms(tokenizer: Tokenizer, tmp_path: Path) -> None:
    terms = [{"name": "a source", "licence": "CC0"}]
    network = Decoder(DecoderConfig(vocabulary_size=265, width=32, layers=1, head_width=16, feed_forward_width=32))
    save_bundle(tmp_path / "in", network.initialise(1), tokenizer, ModelCard("A", "sft", terms=terms))
    import_directory(tmp_path / "in", tmp_path / "out")
    assert load_bundle(tmp_path / "out").terms == terms
