"""Which form PyTorch's attention gets on a GPU; what the kernels compute there, only a GPU shows (benchmarks/gpu.py)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from duihua.nn.fused_attention import for_gpu, one_shape, repeated

HEADS, GROUPS = 6, 2


@contextmanager
def autocast_on_gpu(dtype: torch.dtype | None) -> Iterator[None]:
    """What torch.autocast sets, which refuses where no GPU is."""
    if dtype is not None:
        torch.set_autocast_enabled("cuda", True)
        torch.set_autocast_dtype("cuda", dtype)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)


def test_on_a_gpu_no_kernel_meets_groups_that_it_does_not_know() -> None:
    """The one that takes a mask, or fp32, takes no groups; the flash kernel does."""
    query, key = torch.randn(2, HEADS, 8, 16), torch.randn(2, GROUPS, 8, 16)
    for masked, dtype, heads in (
        (True, torch.bfloat16, HEADS),
        (True, None, HEADS),
        (False, None, HEADS),
        (False, torch.bfloat16, GROUPS),
        (False, torch.float16, GROUPS),
    ):
        with autocast_on_gpu(dtype):
            found = for_gpu(query, key, key.double(), masked)
        assert [x.shape[1] for x in found] == [HEADS, heads, heads], (masked, dtype)
        assert dtype is None or {x.dtype for x in found} == {dtype}


def attention(query: Tensor, key: Tensor, value: Tensor, groups: bool) -> Tensor:
    return torch.nn.functional.scaled_dot_product_attention(query, key, value, enable_gqa=groups)


def test_repeated_heads_are_those_of_the_groups_in_numbers_and_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, HEADS, 5, 8, generator=generator, dtype=torch.float64)
    key, value = (torch.randn(2, GROUPS, 5, 8, generator=generator, dtype=torch.float64).requires_grad_() for _ in "kv")
    expected = attention(query, key, value, groups=True)
    found = attention(query, repeated(key, HEADS), repeated(value, HEADS), groups=False)
    assert torch.allclose(found, expected, atol=1e-12)
    for ours, theirs in zip(
        torch.autograd.grad(found.square().sum(), (key, value)),
        torch.autograd.grad(expected.square().sum(), (key, value)),
        strict=True,
    ):
        assert torch.allclose(ours, theirs, atol=1e-12)
    other_key, other_value = (
        x.repeat(1, HEADS // GROUPS, 1, 1) for x in (key, value)
    )  # the negative control: their order
    assert not torch.allclose(attention(query, other_key, other_value, groups=False), expected, atol=1e-2)


def test_cudnn_is_asked_only_where_all_batches_have_one_shape() -> None:
    assert not torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
    with pytest.raises(KeyboardInterrupt), one_shape():
        assert torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
        raise KeyboardInterrupt
    assert not torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
