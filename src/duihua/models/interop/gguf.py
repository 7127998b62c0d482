"""A bundle as one GGUF file, which llama.cpp and what is built on it (Ollama, LM Studio) run.

The file holds settings, tokenizer and tensors (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). Names of
tensors come from the `gguf` package's own table. Three families are the same computation there as here:

- qwen3: nothing is changed; llama.cpp turns halves of a head, as we do.
- llama: llama.cpp turns neighbouring pairs (the layout of Su et al. 2021), so the rows of the query and key matrices are
  put in that order. Without this the file loads, runs and talks nonsense.
- gpt2: query, key and value are one matrix, each row an output (Hugging Face stores it turned).

Number formats: matrices in f32, f16, bf16 or q8_0 (blocks of 32 numbers with one f16 scale; a matrix whose rows are not a
multiple of 32 stays f16); vectors and position tables always in f32, as llama.cpp demands.

The file is written aside tensor by tensor and renamed. `gguf` is imported at the call, because it is an extra.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from duihua.errors import BundleError, DuihuaError
from duihua.files import require_space, sync_directory
from duihua.models.bundle import Bundle
from duihua.models.config import DecoderConfig
from duihua.models.interop.exporting import cannot_write
from duihua.models.interop.gguf_settings import write_settings, write_tokenizer
from duihua.models.interop.gguf_tokenizer import tokenizer_facts
from duihua.models.interop.registry import FAMILIES, family_of, reasons_against, tensor_layout
from duihua.nn import rope_scaling
from duihua.nn.positions import rotary_frequencies

ACTIVATION = {"qwen3": "silu", "llama": "silu", "gpt2": "gelu_tanh"}
"""The families, each with the activation that llama.cpp computes for it."""
SETTINGS_SPACE = 16 << 20  # bytes kept for settings and a tokenizer of 150,000 tokens


@dataclass(frozen=True)
class GGUFFile:
    """What was written. notes: where llama.cpp differs from duihua."""

    file: Path
    bytes: int
    tensors: int
    parameters: int
    forms: dict[str, int]
    """Number format -> how many tensors are in it."""
    notes: list[str]


@dataclass(frozen=True)
class _Planned:
    """A tensor to be written: its name over there, shape (rows first) and how to get it in fp32."""

    name: str
    shape: tuple[int, ...]
    read: Callable[[], Tensor]


def export_gguf(bundle: Bundle, output: Path, form: str, name: str = "") -> GGUFFile:
    """Write `bundle` (a policy of the families above, with its tokenizer) to the file `output`, matrices in `form`.

    Raises BundleError for a bundle that llama.cpp does not compute, DuihuaError where `output` cannot be written.
    """
    library = _library()
    family = refuse_foreign(bundle)
    facts = tokenizer_facts(bundle.tokenizer, bundle.config.vocabulary_size)
    architecture = {
        "qwen3": library.MODEL_ARCH.QWEN3,
        "llama": library.MODEL_ARCH.LLAMA,
        "gpt2": library.MODEL_ARCH.GPT2,
    }
    arch = architecture[family]
    names = library.get_tensor_name_map(arch, bundle.config.layers)
    planned = list(_plan(bundle, family, names))
    types = [_type(library, tensor, form) for tensor in planned]
    sizes = [_bytes(library, tensor, type_) for tensor, type_ in zip(planned, types, strict=True)]
    require_space(output.parent, sum(sizes) + SETTINGS_SPACE)
    aside = output.with_name(f".{output.name}.{os.getpid()}.part")
    writer = library.GGUFWriter(aside, library.MODEL_ARCH_NAMES[arch])
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_settings(writer, library, bundle, family, form, name or output.stem)
        write_tokenizer(writer, facts)
        for tensor, type_, size in zip(planned, types, sizes, strict=True):
            shape = library.quants.quant_shape_to_byte_shape(tensor.shape, type_)
            packed = type_ not in (library.GGMLQuantizationType.F32, library.GGMLQuantizationType.F16)
            writer.add_tensor_info(
                tensor.name,
                shape if packed else tensor.shape,
                np.dtype(np.uint8) if packed else np.dtype(np.float32),
                size,
                raw_dtype=type_,
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor, type_ in zip(planned, types, strict=True):
            values = tensor.read().to(torch.float32).contiguous().numpy()
            writer.write_tensor_data(library.quants.quantize(values, type_))
        writer.close()
        with open(aside, "rb") as file:
            os.fsync(file.fileno())
        aside.replace(output)
        sync_directory(output.parent)
    except OSError as error:
        raise cannot_write(output, error) from error
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            aside.unlink()
    forms = {type_.name: types.count(type_) for type_ in types}
    parameters = sum(math.prod(tensor.shape) for tensor in planned)
    return GGUFFile(output, output.stat().st_size, len(planned), parameters, forms, facts.notes)


def refuse_foreign(bundle: Bundle) -> str:
    """The bundle's family, when llama.cpp computes it; BundleError with the reason and the nearest way out otherwise."""
    config, where = bundle.config, str(bundle.directory)
    if bundle.kind != "policy":
        raise BundleError(
            f"a {bundle.kind} bundle gives scores, and llama.cpp's servers give text",
            where=where,
            remedy="Export it with --to huggingface, or export the policy",
        )
    family = family_of(config)
    if family == "openai-gpt":
        raise BundleError(
            "llama.cpp has no architecture with GPT-1's norms behind each layer",
            where=where,
            remedy="Export it with --to huggingface; a gpt2 shape of the same size can go to GGUF",
        )
    if family not in ACTIVATION:
        reasons = {name: reasons_against(config, name) for name in ACTIVATION}
        nearest = min(reasons, key=lambda name: len(reasons[name]))
        raise BundleError(
            f"llama.cpp has no architecture for this shape, of which the nearest is {nearest}: {'; '.join(reasons[nearest])}",
            where=where,
            remedy=f"Serve it with `duihua serve`, or pre-train the {nearest} preset for a model that other programs run",
        )
    problem = ""
    if config.activation != ACTIVATION[family]:
        problem = f"llama.cpp computes {family} with {ACTIVATION[family]}, this one has {config.activation}"
    if family == "qwen3" and config.attention_bias:
        problem = "llama.cpp's qwen3 has no biases in attention, and would not load the file"
    scaling = config.rope_scaling
    if scaling is not None:
        own = scaling.attention_factor, scaling.mscale, scaling.mscale_all_dim, not scaling.truncate
        if scaling.kind == "dynamic":
            problem = "llama.cpp has no rotary scaling of kind dynamic"
        elif scaling.kind == "yarn" and any(own):
            problem = (
                "its yarn scaling has an attention factor or a ramp of its own, which llama.cpp computes otherwise"
            )
        elif scaling.kind == "llama3" and family != "llama":
            problem = f"llama.cpp reads rotary scaling of kind llama3 in llama models only, this is {family}"
    if problem:
        raise BundleError(problem, where=where, remedy="Export it with --to huggingface")
    return family


# -- tensors ----------------------------------------------------------------------------------------------------------


def _plan(bundle: Bundle, family: str, names: Any) -> Iterator[_Planned]:
    """Every tensor under its GGUF name, its rows in llama.cpp's order. What Hugging Face stores turned is not turned
    there: both llama.cpp and we have a row for each output."""
    config = bundle.config
    if config.rope_scaling is not None and config.rope_scaling.kind == "llama3":
        yield _Planned("rope_freqs.weight", (config.head_width // 2,), lambda: rope_divisors(config))
    parameters = dict(bundle.policy.named_parameters(remove_duplicate=False))
    for place in tensor_layout(FAMILIES[family], config, "policy"):
        name = names.get_name(place.name, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise BundleError(
                f"GGUF has no name for {place.name}",
                where=str(bundle.directory),
                remedy="Export it with --to huggingface",
            )
        parts = tuple(parameters[ours].detach() for ours in place.ours)
        heads = 0
        if family == "llama" and ".self_attn.q_proj." in place.name:
            heads = config.heads
        elif family == "llama" and ".self_attn.k_proj." in place.name:
            heads = config.key_value_heads
        shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
        yield _Planned(name, shape, partial(_rows, parts, heads))


def _rows(parts: tuple[Tensor, ...], heads: int) -> Tensor:
    """Parameters below each other, with pairs for halves where there are `heads` to turn."""
    whole = torch.cat(parts) if len(parts) > 1 else parts[0]
    return pairs_from_halves(whole, heads) if heads else whole


def pairs_from_halves(weight: Tensor, heads: int) -> Tensor:
    """Within each head, row i and row i + e/2 become neighbours: the rotation of pairs then gives what that of halves
    gave. weight: (heads * e, ...)."""
    width = weight.shape[0] // heads
    split = weight.reshape(heads, 2, width // 2, *weight.shape[1:])
    return split.transpose(1, 2).reshape(weight.shape)


def rope_divisors(config: DecoderConfig) -> Tensor:
    """By what llama.cpp is to divide each rotary frequency for Llama 3.1's scaling, (head_width / 2,)."""
    scaling = config.rope_scaling
    assert scaling is not None
    plain = rotary_frequencies(config.head_width, config.rope_theta, torch.device("cpu"))
    original = scaling.original_context or config.context
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    return plain / rope_scaling.llama3(plain, scaling.factor, original, low, high)


def _type(library: Any, tensor: _Planned, form: str) -> Any:
    kinds = library.GGMLQuantizationType
    if len(tensor.shape) == 1 or tensor.name == "position_embd.weight":
        return kinds.F32
    if form == "q8_0" and tensor.shape[-1] % 32:
        return kinds.F16
    return {"f32": kinds.F32, "f16": kinds.F16, "bf16": kinds.BF16, "q8_0": kinds.Q8_0}[form]


def _bytes(library: Any, tensor: _Planned, type_: Any) -> int:
    block, size = library.GGML_QUANT_SIZES[type_]
    return math.prod(tensor.shape) // int(block) * int(size)


def _library() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise DuihuaError(
            "GGUF files need the package gguf", where="--to gguf", remedy="Run pip install 'duihua[gguf]'"
        ) from error
    return gguf
