"""softmax(Q K^T / sqrt(e)) V by PyTorch's own kernels, and in which form they get it on a GPU.

Why not PyTorch's choice alone, which is right everywhere and slow in two places that a processor does not show:

- On a B200, and by some versions on an H100 or H200, it asks cuDNN first (sdp_utils.cpp, `check_prefer_cudnn_attention`),
  which builds a program for every shape that it has not seen: on a B200 others measured 0.44 seconds, and 0.55 for its
  gradient (modelscope/FunASR, issue 3704). A reply that grows by a token is a new shape at each, and so is a batch of
  conversations. So cuDNN is left out for the whole process, but where all batches have one shape.
- Heads in groups that share keys are known to the flash kernel, which takes neither masks nor fp32, and not to the one that
  takes both: there the plain way is left, which holds all scores. So keys and values are repeated for that one.

Shapes: b rows, h query heads, g heads of keys, r = h / g, t queries, s keys, e features.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

torch.backends.cuda.enable_cudnn_sdp(False)


@contextmanager
def one_shape() -> Iterator[None]:
    """Inside, all batches have the same shape, so that cuDNN may be asked: its program is built once."""
    before = torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
    torch.backends.cuda.enable_cudnn_sdp(True)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


def fused_attention(
    query_bhte: Tensor,
    key_bgse: Tensor,
    value_bgse: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    causal: bool = False,
) -> Tensor:
    """(b, h, t, e). mask: true where a query may look, broadcastable to (b, 1, t, s); not together with `causal`."""
    if query_bhte.device.type == "cuda":
        query_bhte, key_bgse, value_bgse = for_gpu(query_bhte, key_bgse, value_bgse, mask is not None)
    return nn.functional.scaled_dot_product_attention(
        query_bhte,
        key_bgse,
        value_bgse,
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=causal,
        enable_gqa=query_bhte.shape[1] != key_bgse.shape[1],
    )


def for_gpu(query_bhte: Tensor, key_bgse: Tensor, value_bgse: Tensor, masked: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The three as a kernel of a GPU takes them: of autocast's type, and without groups where it knows none."""
    if torch.is_autocast_enabled("cuda"):  # the kernel's call would do it too, but behind the copies
        dtype = torch.get_autocast_dtype("cuda")
        query_bhte, key_bgse, value_bgse = query_bhte.to(dtype), key_bgse.to(dtype), value_bgse.to(dtype)
    heads = query_bhte.shape[1]
    if heads != key_bgse.shape[1] and (masked or query_bhte.dtype is torch.float32):
        key_bgse, value_bgse = repeated(key_bgse, heads), repeated(value_bgse, heads)
    return query_bhte, key_bgse, value_bgse


def repeated(x_bgse: Tensor, heads: int) -> Tensor:
    """Keys or values of each query head, (b, h, s, e): those of a group stand side by side."""
    batch, groups, length, features = x_bgse.shape
    return x_bgse[:, :, None].expand(batch, groups, heads // groups, length, features).flatten(1, 2)
