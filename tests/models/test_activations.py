"""What is said to be kept for the backward pass is what autograd keeps on a real one."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch import Tensor

from duihua.models.activations import count_activations, kept_for_backward
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder
from duihua.models.heads import ScoredDecoder
from duihua.models.imagined import build_imagined
from duihua.models.presets import preset
from duihua.nn import whole_attention
from duihua.nn.products import products_by

SIZE: dict[str, Any] = {
    "vocabulary_size": 90,
    "width": 32,
    "layers": 3,
    "heads": 2,
    "key_value_heads": 2,
    "head_width": 16,
    "feed_forward_width": 48,
    "context": 64,
}


def really_kept(network: Decoder, batch: int, time: int, dtype: torch.dtype | None) -> int:
    met: dict[int, Any] = {weight.untyped_storage().data_ptr(): None for weight in network.parameters()}
    met |= {buffer.untyped_storage().data_ptr(): None for buffer in network.buffers()}
    kept = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal kept
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in met:
            met[storage.data_ptr()] = storage
            kept += storage.nbytes()
        return tensor

    autocast = torch.autocast("cpu", dtype=dtype) if dtype else contextlib.nullcontext()
    with autocast, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network.hidden(torch.zeros(batch, time, dtype=torch.long))
    return kept


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("name", ["gpt1", "gpt2", "llama", "qwen3", "fast"])
def test_the_count_equals_what_autograd_keeps(name: str, dtype: torch.dtype | None) -> None:
    network = Decoder(preset(name, **SIZE)).initialise(0).train()
    found = count_activations(network, 3, 20, dtype).plain
    assert found == really_kept(network, 3, 20, dtype)
    assert found != really_kept(network, 3, 21, dtype)
    assert count_activations(build_imagined(network.config), 3, 20, dtype).plain == found


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_on_a_gpu_no_scores_are_kept_whatever_the_processor_does(
    dtype: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Decoder(DecoderConfig(**SIZE))
    fused = count_activations(network, 2, 64, dtype, "cuda")
    monkeypatch.setattr(whole_attention, "fits", lambda *_: True)
    assert count_activations(network, 2, 64, dtype).plain > fused.plain  # a processor that keeps them
    monkeypatch.undo()
    with products_by("torch"):
        assert count_activations(network, 2, 64).plain == count_activations(network, 2, 64, None, "cuda").plain
    assert fused.loss == 4 * (2 * 64 * 32 + 90 * 32 + 2 * 2 * 64 * 90)


def test_it_grows_with_the_batch_and_checkpointing_keeps_one_block_and_what_enters_the_others() -> None:
    network = Decoder(DecoderConfig(**SIZE))
    blocks, outside = kept_for_backward(network, 2, 16)
    found = count_activations(network, 2, 16)
    assert found.plain == sum(blocks) + outside
    assert found.checkpointed == outside + max(blocks) + 3 * 4 * 2 * 16 * 32
    assert found.checkpointed < found.plain
    double, _ = kept_for_backward(network, 4, 16)
    assert 1.9 * sum(blocks) < sum(double) <= 2 * sum(blocks)


def test_counting_leaves_the_network_as_it_was() -> None:
    network = Decoder(DecoderConfig(**SIZE)).eval()
    network.gradient_checkpointing = True
    count_activations(network, 1, 8)
    assert network.gradient_checkpointing and not network.training
    assert not any(block._forward_hooks or block._forward_pre_hooks for block in network.blocks)


def test_the_next_token_loss_counts_for_language_models_alone() -> None:
    network = Decoder(DecoderConfig(**SIZE))
    assert count_activations(network, 2, 16).loss == 4 * (2 * 16 * 32 + 90 * 32 + 2 * 32 * 90)
    assert count_activations(ScoredDecoder(network), 2, 16).loss == 0
