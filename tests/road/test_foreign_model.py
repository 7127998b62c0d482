"""A model from elsewhere on the whole road: a Qwen3 directory that transformers wrote, in three files, with Qwen3's own
tokenizer of 151,669 ids, is imported, talked to, fine-tuned with LoRA and exported, each by its command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

transformers = pytest.importorskip("transformers")

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("foreign")


@pytest.fixture(scope="module")
def duihua(folder: Path) -> Command:
    here = {"OMP_NUM_THREADS": "1", "DUIHUA_HOME": str(folder / "home")}

    def run(*words: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "duihua", *words],
            cwd=folder,
            env={**os.environ, **here},
            input=text or "",
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    return run


@pytest.fixture(scope="module")
def foreign(folder: Path, qwen3_tokenizer: Path) -> Path:
    """Random weights, untied, bfloat16, sharded in three files."""
    torch.manual_seed(3)
    config = transformers.Qwen3Config(
        vocab_size=151_936,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=256,
        tie_word_embeddings=False,
    )
    network = transformers.Qwen3ForCausalLM(config).to(torch.bfloat16)
    network.save_pretrained(folder / "qwen", max_shard_size=9_730_000)  # a little more than the embedding
    transformers.AutoTokenizer.from_pretrained(qwen3_tokenizer).save_pretrained(folder / "qwen")
    assert len(list((folder / "qwen").glob("*.safetensors"))) == 3
    return folder / "qwen"


@pytest.fixture(scope="module")
def imported(folder: Path, duihua: Command, foreign: Path) -> Path:
    found = json.loads(duihua("import", "qwen", "--output", "bundle", "--json").stdout)
    assert (found["family"], found["weight_files"], found["dtype"]) == ("qwen3", 3, "bfloat16")
    assert (found["tokenizer_ids"], found["vocabulary_rows"], found["chat_template"]) == (151_669, 151_936, "its own")
    return folder / "bundle"


@pytest.fixture(scope="module")
def tuned(folder: Path, duihua: Command, imported: Path) -> Path:
    (folder / "sft.yaml").write_text("sources: [{name: tiny-chat}]\nsteps: 2\nlength: 128\nheldout_conversations: 4\n")
    few = ["--batch-tokens", "256", "--micro-batch-tokens", "128", "--samples", "1", "--reply-tokens", "4"]
    duihua("sft", "--input", "policy=bundle", "--config", "sft.yaml", "--lora", *few, "--output", "sft")
    return folder / "sft"


def weights(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for file in directory.glob("*.safetensors"):
        found |= load_file(file)
    return found


def test_one_can_talk_to_it_through_a_pipe(duihua: Command, imported: Path) -> None:
    done = duihua("chat", "bundle", "--max-new-tokens", "4", "--json", text="hello\n你好\n")
    turns: list[dict[str, Any]] = json.loads(done.stdout)["turns"]
    assert len(turns) == 2


def test_lora_leaves_an_adapter_and_the_tokenizer_as_it_was(imported: Path, tuned: Path) -> None:
    result = json.loads((tuned / "result.json").read_text())
    assert result["metrics"]["steps"] == 2
    for name in ("tokenizer.json", "chat_template.jinja"):
        assert (tuned / name).read_bytes() == (imported / name).read_bytes()
    assert list(tuned.rglob("adapter_model.safetensors"))
    assert sum(source["learnt_tokens"] for source in result["metrics"]["sources"]) > 0


@pytest.mark.slow
def test_it_is_aligned_and_evaluated_by_the_same_commands(folder: Path, duihua: Command, tuned: Path) -> None:
    settings = {
        "reward": "preferences: [{name: tiny-preferences}]\nconversations: [{name: tiny-chat}]\nsampled_pairs: 16\n"
        "off_topic_pairs: 8\nheldout_sampled_pairs: 8\nheldout_off_topic_pairs: 8\nreply_tokens: 8\n"
        "normalisation_samples: 8\nverification_samples: 8\n",
        "ppo": "sources: [{name: tiny-chat}]\ntrain_prompts: 16\nheldout_prompts: 4\nprompt_tokens: 64\nreply_tokens: 8\n"
        "iterations: 1\nrollout_prompts: 8\nepochs: 1\nminibatches: 2\nsamples: 2\n",
        "evaluate": "text_sources: [{name: tiny-text}]\nsources: [{name: tiny-chat}]\nheldout_bytes: 500\n"
        "heldout_conversations: 4\nprompts: 4\nreply_tokens: 8\ngreeting_tokens: 4\n",
    }
    inputs = {
        "reward": ["policy=sft"],
        "ppo": ["policy=sft", "reward=reward"],
        "evaluate": ["base=bundle", "sft=sft", "reward=reward", "ppo=ppo"],
    }
    for stage, text in settings.items():
        (folder / f"{stage}.yaml").write_text(text)
        given = [word for role in inputs[stage] for word in ("--input", role)]
        lora = [] if stage == "evaluate" else ["--lora"]
        duihua(stage, *given, "--config", f"{stage}.yaml", *lora, "--output", stage)
    metrics = json.loads((folder / "evaluate" / "result.json").read_text())["metrics"]
    assert metrics["bits_per_byte"].keys() == {"base", "sft", "ppo"}
    assert (folder / "ppo" / "tokenizer.json").read_bytes() == (tuned / "tokenizer.json").read_bytes()
    assert list((folder / "ppo" / "adapter").glob("adapter_model.safetensors"))


def test_both_exports_of_the_tuned_model_are_read_by_others(
    folder: Path, duihua: Command, tuned: Path, imported: Path
) -> None:
    hf = ["--to", "huggingface", "--output", "hf", "--dtype", "f32", "--shard-megabytes", "19", "--clean"]
    duihua("export", "sft", *hf)
    assert len(list((folder / "hf").glob("*.safetensors"))) == 2
    before, after = weights(folder / "qwen"), weights(folder / "hf")
    changed = [name for name in before if not torch.equal(before[name].float(), after[name])]
    assert before.keys() == after.keys()
    assert changed and all(name.endswith("_proj.weight") for name in changed)
    pytest.importorskip("gguf")
    said = json.loads(
        duihua("export", "sft", "--to", "gguf", "--output", "model.gguf", "--dtype", "q8_0", "--json").stdout
    )
    assert said["parameters"] == sum(weight.numel() for weight in after.values()) and "Q8_0" in said["forms"]
    head = (folder / "model.gguf").read_bytes()[:200]  # llama.cpp reads such a file in test_gguf_llama_cpp.py
    assert head.startswith(b"GGUF") and b"qwen3" in head
