"""Matrix products by the library that is fastest on this processor.

Why: PyTorch multiplies fp32 matrices on an x86 processor with MKL, which keeps its AVX-512 kernels for Intel's own; on
another maker's it runs at half the rate that the machine has, or less. PyTorch also carries oneDNN, whose kernels follow
what a processor can do, and uses it by itself for other number formats only. benchmarks/products.py measures both.

The choice is a rule, not a measurement: a run that is broken off and resumed must multiply as before, to the last bit.
`DUIHUA_PRODUCTS=torch` or `onednn` in the environment overrides it. On a GPU, in another number format, under a compiler
and for products too small to be worth the longer call everything is PyTorch's as ever.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn

from duihua.errors import ConfigError

if TYPE_CHECKING:
    from duihua.nn.packed_weights import PackedWeight

Library = Literal["torch", "onednn"]
VARIABLE = "DUIHUA_PRODUCTS"
SMALLEST = 2_000_000
"""Multiplications and additions below which the ten microseconds that a call of oneDNN takes cost more than it wins."""
_forced: list[Library] = []


def library() -> Library:
    """Who multiplies fp32 matrices on this processor."""
    return _forced[-1] if _forced else _chosen()


@contextmanager
def products_by(name: Library) -> Iterator[None]:
    """Let `name` multiply, for tests and measurements."""
    _forced.append(name)
    try:
        yield
    finally:
        _forced.pop()


@cache
def _chosen() -> Library:
    return choose(os.environ)


def choose(environment: Mapping[str, str], maker: str | None = None, capability: str | None = None) -> Library:
    """oneDNN where the processor has AVX-512 and is not Intel's, unless the environment says otherwise.

    Raises ConfigError where it says something else than auto, torch or onednn, or asks for a oneDNN that is not there.
    """
    asked = environment.get(VARIABLE, "auto")
    if asked not in ("auto", "torch", "onednn"):
        raise ConfigError(
            f"{asked!r} multiplies no matrices", where=f"environment, {VARIABLE}", remedy="Use auto, torch or onednn"
        )
    present = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    there = present and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    if asked == "onednn" and not there:
        raise ConfigError(
            "this PyTorch carries no oneDNN", where=f"environment, {VARIABLE}", remedy="Use auto or torch"
        )
    if asked != "auto":
        return cast(Library, asked)
    capability = torch.backends.cpu.get_cpu_capability() if capability is None else capability
    maker = processor_maker() if maker is None else maker
    return "onednn" if there and capability == "AVX512" and maker and maker != "GenuineIntel" else "torch"


@cache
def bf16_is_native() -> bool:
    """Whether this processor multiplies bf16 by itself (AVX-512 BF16 or AMX), at twice the rate of fp32 or more."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def gpu_has_bf16() -> bool:
    """Whether the GPU multiplies bf16 by itself (Ampere and later). PyTorch says yes for older ones too, which take longer for
    it than for fp32."""
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def processor_maker() -> str:
    """Who made the processor, as it says itself: GenuineIntel, AuthenticAMD; empty where it cannot be told."""
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines():
            if line.startswith("vendor_id"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor().rpartition(",")[2].strip()  # "AMD64 Family 25 Model 33 Stepping 0, AuthenticAMD"


def product(left_nk: Tensor, right_km: Tensor) -> Tensor:
    """left @ right, (n, m), without gradients of its own where oneDNN computes it; a transposed right side costs nothing."""
    if pays(left_nk, right_km.t()):
        return onednn(evened(left_nk), right_km.t())[: len(left_nk)]
    if left_nk.dtype is torch.bfloat16:
        return (evened(left_nk) @ right_km)[: len(left_nk)]
    return left_nk @ right_km


def evened(x_n: Tensor) -> Tensor:
    """The rows filled up with zeros to one of eight numbers an octave (up to 16 to a power of two), where oneDNN would multiply
    them (in fp32 or bf16).

    Why: for each number of rows that it has not seen it makes a program, which takes 0.2 ms and keeps most of a megabyte for
    good; batches of conversations have a thousand different ones.
    """
    rows = len(x_n)
    step = 1 << (max(4, rows.bit_length() - 4) if rows > 16 else max(0, rows - 1).bit_length())
    if rows % step == 0 or x_n.device.type != "cpu" or torch.compiler.is_compiling():
        return x_n
    if x_n.dtype is not torch.bfloat16 and not torch.is_autocast_enabled("cpu") and library() != "onednn":
        return x_n
    return torch.cat((x_n, x_n.new_zeros(step - rows % step, *x_n.shape[1:])))


def linear(x: Tensor, weight_oi: Tensor, bias_o: Tensor | None = None) -> Tensor:
    """x weight^T + bias with gradients, (..., i) -> (..., o): torch.nn.functional.linear by the library chosen."""
    if pays(x, weight_oi):
        return by_rows(x, lambda rows_ni: _Linear.apply(rows_ni.contiguous(), weight_oi, bias_o))  # type: ignore[no-untyped-call]
    compiled = torch.compiler.is_compiling()
    if compiled or x.device.type != "cpu" or x.numel() * weight_oi.shape[0] < SMALLEST:
        return nn.functional.linear(x, weight_oi, bias_o)
    return by_rows(x, lambda rows_ni: nn.functional.linear(rows_ni, weight_oi, bias_o))


def by_rows(x: Tensor, multiply: Callable[[Tensor], Tensor]) -> Tensor:
    """(..., i) -> (..., o) by what multiplies rows (n, i), which are filled up first (see `evened`)."""
    plain_ni = x.reshape(-1, x.shape[-1])
    filled_ni = evened(plain_ni)
    y_no = multiply(filled_ni)
    if len(filled_ni) > len(plain_ni):  # else the gradient would be copied into zeros, too
        y_no = y_no[: len(plain_ni)]
    return y_no.view(*x.shape[:-1], y_no.shape[1])


class Linear(nn.Linear):
    """torch's layer, multiplied by the library chosen. packed: its weight laid out ahead of time (nn/packed_weights.py)."""

    packed: PackedWeight | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.packed is not None and self.packed.serves(x, self.weight):
            return self.packed.product(x, self.bias)
        return linear(x, self.weight, self.bias)

    def __getstate__(self) -> dict[str, Any]:
        """Without the laid out weight, which cannot be copied."""
        return {name: value for name, value in self.__dict__.items() if name != "packed"}


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ni: Tensor, weight_oi: Tensor, bias_o: Tensor | None) -> Tensor:
        ctx.save_for_backward(x_ni, weight_oi)
        return onednn(x_ni, weight_oi, bias_o)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_no: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x_ni, weight_oi = ctx.saved_tensors
        grad_no = grad_no.contiguous()  # a sum's gradient is one number spread out, which oneDNN cannot read
        grad_x = onednn(grad_no, weight_oi.t()) if ctx.needs_input_grad[0] else None
        grad_weight = weight_gradient(grad_no, x_ni) if ctx.needs_input_grad[1] else None
        return grad_x, grad_weight, grad_no.sum(0) if ctx.needs_input_grad[2] else None


def weight_gradient(grad_no: Tensor, x_ni: Tensor) -> Tensor:
    """grad^T x, (o, i). oneDNN copies its first side when it is transposed: the narrower one goes there."""
    grad_no, x_ni = evened(grad_no), evened(x_ni)
    if not pays(grad_no.t(), x_ni.t()):
        return grad_no.t() @ x_ni
    if grad_no.shape[1] <= x_ni.shape[1]:
        return onednn(grad_no.t(), x_ni.t())
    return onednn(x_ni.t(), grad_no.t()).t()


def add_weight_gradient(total_oi: Tensor, grad_no: Tensor, x_ni: Tensor) -> Tensor:
    """total + grad^T x, (o, i); the total is written over or given up, and may come back transposed in memory."""
    grad_no, x_ni = evened(grad_no), evened(x_ni)
    if grad_no.dtype != total_oi.dtype:
        return total_oi.add_(grad_no.t() @ x_ni)
    if not pays(grad_no.t(), x_ni.t()):
        return total_oi.addmm_(grad_no.t(), x_ni)
    return add_product(total_oi.t(), x_ni.t(), grad_no.t()).t()


def add_product(total_no: Tensor, x_ni: Tensor, weight_oi: Tensor) -> Tensor:
    """total + x weight^T by oneDNN; the total is written over or given up."""
    total: Tensor = _kernel().binary(x_ni, total_no, weight_oi, None, "add")
    return total


def batched_product(
    left_kmn: Tensor, right_kpn: Tensor, plus_kmp: Tensor | None = None, alpha: float = 1.0, beta: float = 1.0
) -> Tensor:
    """alpha left right^T of each of k pairs, plus beta times what is to be added, (k, m, p)."""
    if len(left_kmn) and pays(left_kmn[0], right_kpn[0]):
        every = [onednn(left, right) for left, right in zip(left_kmn, right_kpn, strict=True)]
        found = torch.stack(every) if len(every) > 1 else every[0][None]
        return found if plus_kmp is None else found.mul_(alpha).add_(plus_kmp, alpha=beta)
    if plus_kmp is None:
        return torch.bmm(left_kmn, right_kpn.mT)
    return torch.baddbmm(plus_kmp, left_kmn, right_kpn.mT, beta=beta, alpha=alpha)  # one rounding, which counts in bf16


def pays(x: Tensor, weight_oi: Tensor, smallest: int = SMALLEST) -> bool:
    """Whether oneDNN is to multiply these two, where it pays from `smallest` multiplications and additions."""
    return (
        not torch.compiler.is_compiling()  # first: a compiler would make a program for each side of the next question
        and x.numel() * weight_oi.shape[0] >= smallest
        and x.device.type == "cpu"
        and weight_oi.device.type == "cpu"
        and x.dtype == weight_oi.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and library() == "onednn"
    )


def onednn(x_ni: Tensor, weight_oi: Tensor, bias_o: Tensor | None = None) -> Tensor:
    """x weight^T + bias; the weight may be a transposed view."""
    y: Tensor = _kernel()(x_ni, weight_oi, bias_o, "none", [], "")
    return y


@cache
def _kernel() -> Any:
    """oneDNN's linear layer, which torch's own compiler calls too: no part of torch's documented interface."""
    return torch.ops.mkldnn._linear_pointwise
