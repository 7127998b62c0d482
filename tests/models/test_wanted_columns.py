"""The vectors of some columns alone are those that the whole computation gives, in every variant, and so is the gradient."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from duihua.models.config import DecoderConfig, RopeScaling
from duihua.models.decoder import Decoder
from duihua.nn.attention import columns_where

CONFIG = DecoderConfig(
    vocabulary_size=97, width=32, layers=2, heads=4, key_value_heads=2, head_width=8, feed_forward_width=48, context=40
)
VARIANTS: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "one layer": {"layers": 1},
    "gpt1": {
        "norm_place": "post",
        "positions": "learned",
        "norm": "layer",
        "attention_bias": True,
        "final_norm": False,
    },
    "fast": {"value_embeddings": True, "residual_scalars": True, "logit_soft_cap": 15.0, "query_key_norm": "plain"},
    "sinusoids": {"positions": "sinusoidal"},
    "beyond the context": {"rope_scaling": RopeScaling(kind="dynamic", factor=4.0, original_context=10)},
}
COLUMNS = torch.tensor([[3, 7, 11], [0, 5, 5], [11, 10, 1]])


def drawn(**changes: Any) -> Decoder:
    torch.manual_seed(0)
    network = Decoder(dataclasses.replace(CONFIG, **changes)).eval()
    for weight in network.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.2)
    return network


def inputs() -> dict[str, dict[str, Tensor]]:
    """Every way of saying what a token may see."""
    left = torch.ones(3, 12, dtype=torch.long)
    left[0, :3], left[1, 9:] = 0, 0  # pads on the left in one row, on the right in another
    halves = torch.tensor([0] * 5 + [1] * 7).expand(3, 12)
    packed = torch.cat((torch.arange(5), torch.arange(7))).expand(3, 12)
    tree = (halves[:, :, None] == halves[:, None, :]) | (halves[:, None, :] == 0)
    return {
        "causal": {},
        "padded": {"attention_mask_bt": left},
        "packed": {"segments_bt": halves, "positions_bt": packed},
        "branched": {"attention_mask_bt": tree, "positions_bt": packed},
    }


def at(hidden_btd: Tensor) -> Tensor:
    return hidden_btd[torch.arange(3)[:, None], COLUMNS]


@pytest.mark.parametrize("variant", list(VARIANTS))
@pytest.mark.parametrize("way", list(inputs()))
def test_some_columns_equal_the_whole(variant: str, way: str) -> None:
    network, given = drawn(**VARIANTS[variant]), inputs()[way]
    ids = torch.randint(0, 97, (3, 12))
    weights = torch.randn(3, 3, 32)
    whole = at(network.hidden(ids, **given))
    some = network.hidden(ids, columns_br=COLUMNS, **given)
    assert some.shape == (3, 3, 32)
    assert (some - whole).abs().max() < 1e-5
    beside = network.hidden(ids, columns_br=(COLUMNS + 1).clamp(max=11), **given)
    assert (beside - whole).abs().max() > 1e-2, "the columns beside them are others"
    learnt = [weight for name, weight in network.named_parameters() if "head" not in name]
    wanted = torch.autograd.grad((whole * weights).sum(), learnt)
    found = torch.autograd.grad((some * weights).sum(), learnt)
    assert max(float((a - b).abs().max()) for a, b in zip(found, wanted, strict=True)) < 1e-4


def test_a_prefill_reads_its_last_column_and_still_writes_all_keys() -> None:
    network = drawn()
    ids, places = torch.randint(0, 97, (2, 9)), torch.arange(9).expand(2, 9)
    lengths = torch.tensor([9, 6])
    cache, rows = network.new_cache(4), torch.tensor([3, 1])
    last = network.hidden(ids, positions_bt=places, cache=cache, rows_b=rows, columns_br=lengths[:, None] - 1)[:, 0]
    whole = network.hidden(ids)
    assert (last - whole[torch.arange(2), lengths - 1]).abs().max() < 1e-5
    after = network.hidden(torch.tensor([[5], [6]]), positions_bt=lengths[:, None], cache=cache, rows_b=rows)
    for row, length in enumerate(lengths.tolist()):
        read = torch.cat((ids[row, :length], torch.tensor([5 + row])))[None]
        assert (after[row, 0] - network.hidden(read)[0, -1]).abs().max() < 1e-5


def test_with_gradient_checkpointing() -> None:
    network, ids = drawn().train(), torch.randint(0, 97, (3, 12))
    whole = at(network.hidden(ids))
    network.gradient_checkpointing = True
    some = network.hidden(ids, columns_br=COLUMNS)
    assert (some - whole).abs().max() < 1e-5
    some.sum().backward()  # type: ignore[no-untyped-call]
    assert network.blocks[1].attention.query.weight.grad.abs().sum() > 0  # type: ignore[union-attr]


def test_the_columns_of_a_mask_come_in_order_and_shorter_rows_are_filled_up() -> None:
    mask = torch.tensor([[0, 1, 0, 1, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)
    found = columns_where(mask)
    assert found[0].tolist() == [1, 3, 4]
    assert found[1].tolist()[0] == 0
    assert found.shape == (3, 3)
    assert columns_where(mask[2:]).shape == (1, 1), "one column where none is wanted"
