"""A GPU that is only pretended: tensors that say they are on cuda:0, and are computed on the processor.

Why: the commonest fault of code that nobody has run on a GPU is a tensor that was left on the processor, and on the processor
nothing shows it. Here such a tensor meets those of the "GPU" and the operation raises, as on a real one, so that every stage
can be run with `--device cuda` where there is none. What it cannot show: speed, memory, and what a GPU's kernels compute.

How: `Pretended` wraps a tensor and claims another device; the dispatch mode sees every operation below autograd, checks where
its tensors are, runs it on what is wrapped, and wraps what comes out. pretended.cpp has what torch asks in C++. A few
functions make tensors without being dispatched (torch.tensor, lists as indices): those are replaced from Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
COPIES = {aten.copy_.default, aten._to_copy.default}
"""Between any two devices."""
INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
"""A tensor of the GPU may be indexed from the processor, not the other way round."""
MATH = 0
"""The attention that consists of plain operations: the fused kernels of CUDA are not there."""


class Pretended(Tensor):
    """A tensor on the pretended GPU. inner: what it holds, on the processor."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Pretended:
        made: Pretended = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=torch.device("cuda", 0),
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})

    def __repr__(self, *, tensor_contents: None = None) -> str:
        return f"Pretended({self.inner})"

    def tolist(self) -> Any:
        return self.inner.tolist()

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(_dispatched(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(_dispatched(index), value)


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


def computed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """An operation's result, on the device where a GPU would have it. RuntimeError where its tensors are on two."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    ours = any(isinstance(tensor, Pretended) for tensor in tensors)
    _check_devices(func, args, tensors, ours)
    if func is aten._fused_sdp_choice.default:
        return MATH
    on_gpu = isinstance(args[0], Pretended) if func is aten.copy_.default else ours
    device = kwargs.get("device")
    if device is not None:
        on_gpu = torch.device(device).type == "cuda"
        kwargs = {**kwargs, "device": torch.device("cpu") if on_gpu else device}
        kwargs.pop("pin_memory", None)
    found = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))
    returned = func._schema.returns
    if returned and returned[0].alias_info is not None and returned[0].alias_info.is_write:  # in place: what was given
        place, argument = next(
            (place, one)
            for place, one in enumerate(func._schema.arguments)
            if one.alias_info and one.alias_info.is_write
        )
        return args[place] if place < len(args) else kwargs[argument.name]
    return tree_map(_wrapped, found) if on_gpu else found


def _check_devices(func: Any, args: tuple[Any, ...], tensors: list[Tensor], ours: bool) -> None:
    """Numbers (tensors without dimensions) may come from the processor."""
    left = [tensor for tensor in tensors if not isinstance(tensor, Pretended) and tensor.dim() > 0]
    if func in INDEXED:
        left = [one for one in (args[0], *args[2:3]) if any(one is tensor for tensor in left)]
    if ours and left and func not in COPIES:
        raise RuntimeError(f"{func}: tensors on cuda:0 and on {left[0].device}, of {tuple(left[0].shape)}")


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, Pretended) else value


def _wrapped(value: Any) -> Any:
    return Pretended(value) if isinstance(value, Tensor) and not isinstance(value, Pretended) else value


_tensor = torch.tensor


def _dispatched(index: Any) -> Any:
    """An index without lists: torch makes tensors of those on its own."""
    if isinstance(index, tuple):
        return tuple(map(_dispatched, index))
    return _tensor(index) if isinstance(index, list) else index


def _made_by(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """torch.tensor or torch.as_tensor, with the way to the device dispatched."""

    def made(data: Any, *args: Any, device: Any = None, requires_grad: bool = False, **kwargs: Any) -> Tensor:
        found = make(data, *args, **kwargs)
        found = found if device is None else found.to(device)
        return found.requires_grad_() if requires_grad else found

    return made


ANSWERS: dict[str, Any] = {
    "_lazy_init": None,
    "is_available": True,
    "device_count": 1,
    "is_bf16_supported": True,
    "synchronize": None,
    "empty_cache": None,
    "set_rng_state": None,
    "mem_get_info": (64 * 2**30, 64 * 2**30),
    "memory_reserved": 0,
    "memory_allocated": 0,
    "max_memory_reserved": 2**30,
    "max_memory_allocated": 2**30,
    "reset_peak_memory_stats": None,
    "get_device_name": "pretended",
}
"""Of torch.cuda."""


@contextmanager
def pretended_gpu() -> Iterator[None]:
    """Inside the block `cuda` is a device. The library of pretended.cpp must have been loaded before torch."""
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)  # as on a real one, a parameter stays the same object
    patches: list[AbstractContextManager[Any]] = [
        *(
            mock.patch.object(torch.cuda, name, lambda *_, answer=answer, **__: answer)
            for name, answer in ANSWERS.items()
        ),
        mock.patch.object(torch.cuda, "get_rng_state", lambda *_, **__: torch.zeros(16, dtype=torch.uint8)),
        mock.patch.object(torch, "tensor", _made_by(torch.tensor)),
        mock.patch.object(torch, "as_tensor", _made_by(torch.as_tensor)),
    ]
    try:
        with ExitStack() as stack:
            for patch in patches:
                stack.enter_context(patch)
            stack.enter_context(_Mode())
            yield
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)
