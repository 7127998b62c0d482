"""Our network against transformers' Qwen3, both ways through a directory, at logits of a scale of about 6.

The scale matters: with the small logits of a fresh network a wrong epsilon or a missing norm would hide below the bound.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import duihua.nn.attention
from duihua.models.bundle import load_bundle, save_bundle
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder
from duihua.models.heads import ScoredDecoder
from duihua.models.model_card import ModelCard
from duihua.nn.norms import RMSNorm
from duihua.text.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")

BOUND = 1e-4
IDS = torch.randint(0, 265, (3, 48), generator=torch.Generator().manual_seed(5))
CARD = ModelCard(title="A model", stage="sft")


def shape(tied: bool = False) -> DecoderConfig:
    return DecoderConfig(
        vocabulary_size=265,
        width=64,
        layers=3,
        heads=4,
        key_value_heads=2,
        head_width=24,
        feed_forward_width=100,
        context=64,
        rope_theta=50_000.0,
        norm_epsilon=1e-6,
        tied_embeddings=tied,
    )


def randomise(network: nn.Module, logit_scale: float = 6.0) -> None:
    """Every weight random, norms too; small embeddings, so that epsilon counts; logits with a deviation of about 6."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim == 1:
                weight.copy_(1 + 0.3 * noise)
            elif "embed" in name:
                weight.copy_(0.02 * noise)
            elif "score" not in name:
                weight.copy_(noise * weight.shape[1] ** -0.5)
            else:
                weight.copy_(noise)
        final = next(w for name, w in network.named_parameters() if name in ("final_norm.weight", "model.norm.weight"))
        final.mul_(logit_scale / float(logits_of(network)[0].std()))


def logits_of(network: nn.Module) -> Tensor:
    with torch.no_grad():
        found = network.eval()(IDS)
    logits: Tensor = found if isinstance(found, Tensor) else found.logits
    return logits


def agrees(network: nn.Module, reference: Tensor) -> bool:
    assert 4 < float(reference.std()) < 9
    return float((logits_of(network) - reference).abs().max()) < BOUND


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["你好 hello hello 你好"] * 3, 265)


@pytest.mark.parametrize("tied", [False, True])
def test_transformers_reads_our_policy_bundle(tokenizer: Tokenizer, tmp_path: Path, tied: bool) -> None:
    network = Decoder(shape(tied))
    randomise(network)
    save_bundle(tmp_path, network, tokenizer, CARD)
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert type(theirs).__name__ == "Qwen3ForCausalLM"
    assert theirs.generation_config.eos_token_id == [tokenizer.im_end_id, tokenizer.end_of_text_id]
    assert theirs.generation_config.pad_token_id == tokenizer.pad_id
    assert agrees(network, logits_of(theirs))


def test_transformers_reads_our_reward_bundle(tokenizer: Tokenizer, tmp_path: Path) -> None:
    network = ScoredDecoder(Decoder(shape())).initialise_score(2)
    randomise(network.decoder)
    save_bundle(tmp_path, network, tokenizer, CARD)
    loader = transformers.AutoModelForSequenceClassification
    theirs, report = loader.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert theirs.config.num_labels == 1
    ids = IDS.clone().clamp(min=4)
    mask = torch.ones_like(ids)
    ids[1, 30:], mask[1, 30:] = tokenizer.pad_id, 0
    with torch.no_grad():
        ours, found = network.last_score(ids, mask), theirs(ids, attention_mask=mask).logits[:, 0]
    assert float(found.abs().max()) > 0.5
    assert float((ours - found).abs().max()) < BOUND


def qwen3(tied: bool) -> Any:
    """transformers' own network, by its own config class."""
    own = shape(tied)
    config = transformers.Qwen3Config(
        vocab_size=own.vocabulary_size,
        hidden_size=own.width,
        num_hidden_layers=own.layers,
        num_attention_heads=own.heads,
        num_key_value_heads=own.key_value_heads,
        head_dim=own.head_width,
        intermediate_size=own.feed_forward_width,
        max_position_embeddings=own.context,
        rope_parameters={"rope_type": "default", "rope_theta": own.rope_theta},
        rms_norm_eps=own.norm_epsilon,
        tie_word_embeddings=tied,
    )
    network = transformers.Qwen3ForCausalLM(config)
    randomise(network)
    return network


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tensor]:
    directory = tmp_path_factory.mktemp("qwen3")
    theirs = qwen3(tied=False)
    size = sum(weight.numel() * 4 for weight in theirs.parameters())
    theirs.save_pretrained(directory, max_shard_size=int(size / 2.6))
    return directory, logits_of(theirs)


def test_a_directory_of_transformers_in_three_shards_loads(sharded: tuple[Path, Tensor]) -> None:
    directory, reference = sharded
    assert len(list(directory.glob("model-*-of-00003.safetensors"))) == 3
    found = load_bundle(directory)
    assert found.config == shape()
    assert agrees(found.policy, reference)


def test_a_tied_directory_of_transformers_loads(tmp_path: Path) -> None:
    theirs = qwen3(tied=True)
    theirs.save_pretrained(tmp_path)
    found = load_bundle(tmp_path)
    assert found.policy.head.weight is found.policy.embedding.weight
    assert agrees(found.policy, logits_of(theirs))


def test_a_bfloat16_directory_of_transformers_loads_as_float32(tmp_path: Path) -> None:
    theirs = qwen3(tied=False).to(torch.bfloat16)
    theirs.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    # Read again, because converting a network also rounds its rotary frequencies.
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert agrees(load_bundle(tmp_path).policy, logits_of(theirs))


def test_a_reward_directory_of_transformers_loads(tmp_path: Path) -> None:
    config = qwen3(tied=False).config
    config.num_labels, config.pad_token_id = 1, 3
    theirs = transformers.Qwen3ForSequenceClassification(config)
    with torch.no_grad():
        theirs.score.weight.normal_(generator=torch.Generator().manual_seed(1))
    theirs.save_pretrained(tmp_path)
    found = load_bundle(tmp_path)
    mask = torch.ones_like(IDS)
    ids = IDS.clone().clamp(min=4)
    with torch.no_grad():
        difference = found.reward.last_score(ids, mask) - theirs.eval()(ids, attention_mask=mask).logits[:, 0]
    assert found.kind == "reward" and found.normalisation is None
    assert float(difference.abs().max()) < BOUND


# -- negative controls: each of these faults, common in ports of this family, must fail the same check ------------------


def wrong_epsilon(network: Decoder, _: pytest.MonkeyPatch) -> None:
    for module in network.modules():
        if isinstance(module, RMSNorm):
            module.epsilon = 1e-5


def interleaved_rotary(network: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        cosine, sine = cosine[..., :half], sine[..., :half]
        even, odd = x[..., 0::2], x[..., 1::2]
        return torch.stack((even * cosine - odd * sine, odd * cosine + even * sine), dim=-1).flatten(-2)

    monkeypatch.setattr(duihua.nn.attention, "rotate", rotate)


def no_final_norm(network: Decoder, _: pytest.MonkeyPatch) -> None:
    network.final_norm = nn.Identity()  # type: ignore[assignment]


def no_query_and_key_norm(network: Decoder, _: pytest.MonkeyPatch) -> None:
    for block in network.blocks:
        block.attention.query_norm = block.attention.key_norm = nn.Identity()


def wrong_rotary_base(network: Decoder, _: pytest.MonkeyPatch) -> None:
    other = Decoder(DecoderConfig(**(vars(shape()) | {"rope_theta": 10_000.0})))
    network.cosine, network.sine = other.cosine, other.sine


@pytest.mark.parametrize(
    "fault", [wrong_epsilon, interleaved_rotary, no_final_norm, no_query_and_key_norm, wrong_rotary_base]
)
def test_the_same_check_rejects(
    fault: Callable[[Decoder, pytest.MonkeyPatch], None],
    sharded: tuple[Path, Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    directory, reference = sharded
    network = load_bundle(directory).policy
    assert agrees(network, reference)
    fault(network, monkeypatch)
    assert not agrees(network, reference)
