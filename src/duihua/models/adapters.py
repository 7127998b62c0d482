"""LoRA adapters in PEFT's format: a folder with adapter_config.json and adapter_model.safetensors.

Why PEFT's: transformers, vLLM, llama.cpp's converter and model hubs read it. Its tensors are named after the modules of
the Hugging Face model, which `models/interop` knows. A module that Hugging Face fuses (GPT's c_attn is query, key and
value in one) gets one adapter there: written, the As stand above each other and the Bs on a block diagonal, which is the
same update at the sum of the ranks; read, each part takes the whole A and its own rows of B.

PEFT names the base model but cannot tell it from another of the same shape. duihua.json, which others ignore, says beside
which weights ours was trained, and on whose data.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from duihua.errors import BundleError
from duihua.files import write_atomic, write_json
from duihua.models.decoder import Decoder
from duihua.models.interop.registry import FAMILIES, family_of, tensor_layout
from duihua.models.weights import read_object
from duihua.nn.lora import LoraLinear, adapters, frozen_fingerprint, matrices_of_blocks, replace_module
from duihua.nn.lora_config import LoraConfig

CONFIG, WEIGHTS, ORIGIN = "adapter_config.json", "adapter_model.safetensors", "duihua.json"
PREFIX = "base_model.model."
"""What PEFT puts before every tensor: its own wrapper and the model inside it."""
UNSUPPORTED = {
    "use_dora": "DoRA, which also trains the columns' lengths",
    "lora_bias": "biases in its adapters",
    "modules_to_save": "whole modules beside its adapters",
    "layer_replication": "repeated layers",
    "trainable_token_indices": "trained rows of the embedding",
    "target_parameters": "adapters of bare parameters",
    "alora_invocation_tokens": "adapters that are on for a part of the text only",
    "use_qalora": "grouped inputs (QA-LoRA)",
    "use_bdlora": "block-diagonal adapters",
    "velora_config": "compressed activations",
    "arrow_config": "routed adapters",
    "monteclora_config": "sampled adapters",
    "kasa_config": "trained singular values",
}
"""Settings of PEFT that change what is computed, and what each means."""


@dataclass(frozen=True)
class Adapter:
    """What an adapter says of itself beside its weights. stage and terms are empty in those of other programs."""

    base: str
    stage: str
    terms: list[dict[str, str]]


@dataclass(frozen=True)
class Part:
    """A matrix of ours, (rows, inputs), inside a module of the Hugging Face model: its rows `start` to `start + rows`."""

    name: str
    start: int
    rows: int
    inputs: int


@dataclass(frozen=True)
class Module:
    """A linear layer of the Hugging Face model. turned: stored with inputs first, as GPT's are."""

    name: str
    parts: tuple[Part, ...]
    turned: bool

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)


def modules(decoder: Decoder) -> dict[str, Module]:
    """The layers that hold the matrices of the blocks, by name, in the order of the family's layout."""
    matrices = dict(matrices_of_blocks(decoder))
    found = {}
    for stored in tensor_layout(FAMILIES[family_of(decoder.config)], decoder.config, "policy"):
        names = [name.removesuffix(".weight") for name in stored.ours]
        if names[0] in matrices and stored.name.endswith(".weight"):
            parts, start = [], 0
            for name in names:
                linear = matrices[name]
                parts.append(Part(name, start, linear.out_features, linear.in_features))
                start += linear.out_features
            name = stored.name.removesuffix(".weight")
            found[name] = Module(name, tuple(parts), stored.turned)
    return found


# -- writing ----------------------------------------------------------------------------------------------------------


def save_adapter(
    directory: Path,
    decoder: Decoder,
    config: LoraConfig,
    *,
    base: Path,
    stage: str = "",
    terms: Sequence[Mapping[str, str]] = (),
) -> None:
    """Write the adapters of `decoder` (made by `add_lora` with `config`) into `directory`; adapter_config.json comes last.

    base: the model that they belong to. stage, terms: what trained them, on whose data. A decoder that no other program
    knows keeps our own names, and only `duihua merge` reads its adapters.
    """
    of_decoder = dict(adapters(decoder))
    known = modules(decoder)
    ends = _shortest_ends(known)
    tensors: dict[str, Tensor] = {}
    targets: dict[str, None] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    for module in known.values():
        adapted = [(part, of_decoder[part.name]) for part in module.parts if part.name in of_decoder]
        if not adapted:
            continue
        a = torch.cat([linear.lora_a.detach().cpu() for _, linear in adapted])
        b = torch.zeros(module.rows, len(a), dtype=a.dtype)
        column = 0
        for part, linear in adapted:
            rank = len(linear.lora_a)
            b[part.start : part.start + part.rows, column : column + rank] = linear.lora_b.detach().cpu()
            column += rank
        tensors[f"{PREFIX}{module.name}.lora_A.weight"] = a
        tensors[f"{PREFIX}{module.name}.lora_B.weight"] = b
        end = ends[module.name]
        targets[end] = None
        if len(a) != config.rank:  # fused: PEFT divides alpha by this rank, and the scale must stay what it was
            ranks[end] = len(a)
            alphas[end] = config.scale * (len(a) ** 0.5 if config.rank_stabilised else len(a))
    (directory / CONFIG).unlink(missing_ok=True)
    write_atomic(directory / WEIGHTS, save(tensors, metadata={"format": "pt"}))
    origin = {"base_sha256": frozen_fingerprint(decoder), "stage": stage, "terms": [dict(term) for term in terms]}
    write_json(directory / ORIGIN, origin)
    write_json(
        directory / CONFIG,
        {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": str(base.resolve()),
            "r": config.rank,
            "lora_alpha": config.alpha,
            "lora_dropout": config.dropout,
            "use_rslora": config.rank_stabilised,
            "target_modules": list(targets),
            "rank_pattern": ranks,
            "alpha_pattern": alphas,
            "bias": "none",
            "fan_in_fan_out": any(module.turned for module in known.values()),
            "init_lora_weights": True,
            "inference_mode": True,
        },
    )


def _shortest_ends(names: Iterable[str]) -> dict[str, str]:
    """For each module's name the shortest end that means it and its like in other layers: q_proj, but attn.c_proj."""
    kinds = {name: re.sub(r"\.\d+\.", ".*.", name) for name in names}
    found = {}
    for name, kind in kinds.items():
        words = kind.split(".")
        ends = [".".join(words[-length:]) for length in range(1, len(words) + 1)]
        others = set(kinds.values()) - {kind}
        found[name] = next(end for end in ends if not any(f".{other}".endswith(f".{end}") for other in others))
    return found


# -- reading ----------------------------------------------------------------------------------------------------------


def load_adapter(decoder: Decoder, directory: str | Path) -> Adapter:
    """Freeze `decoder` and put the adapters of a folder beside its matrices; `merge_lora` then makes them part of it.

    Raises BundleError for a folder that is no adapter, one of another kind, shape or base; all tensors that do not fit
    are named at once.
    """
    directory = Path(directory)
    settings = _read_settings(directory)
    tensors = _read_tensors(directory / WEIGHTS)
    origin = read_object(directory / ORIGIN) if (directory / ORIGIN).is_file() else {}
    decoder.requires_grad_(False)
    base = origin.get("base_sha256", "")
    if base and base != frozen_fingerprint(decoder):
        raise BundleError(
            "was trained beside other weights than this model's",
            where=str(directory),
            remedy=f"Merge it into {settings.get('base_model_name_or_path') or 'the model that it was trained from'}",
        )
    known = modules(decoder)
    found: dict[str, dict[str, Tensor]] = {}
    strangers = []
    for name, tensor in tensors.items():
        match = re.fullmatch(re.escape(PREFIX) + r"(.+)\.lora_([AB])\.weight", name)
        if match is None or match[1] not in known:
            strangers.append(name)
        else:
            found.setdefault(match[1], {})[match[2]] = tensor
    if strangers or not found:
        raise BundleError(
            f"holds {', '.join(sorted(strangers)[:8])}, for which this model has no place"
            if strangers
            else "holds no adapter",
            where=str(directory / WEIGHTS),
            remedy="Use the model that it was trained from",
        )
    problems = [text for module, pair in found.items() for text in _misfits(known[module], pair)]
    if problems:
        raise BundleError(
            "; ".join(problems[:4]), where=str(directory / WEIGHTS), remedy="Use the model that it was trained from"
        )
    for module, pair in found.items():
        rank = len(pair["A"])
        for part in known[module].parts:
            linear = decoder.get_submodule(part.name)
            assert isinstance(linear, nn.Linear)
            adapted = LoraLinear(linear, rank, _scale(settings, module, rank))
            with torch.no_grad():
                adapted.lora_a.copy_(pair["A"])
                adapted.lora_b.copy_(pair["B"][part.start : part.start + part.rows])
            replace_module(decoder, part.name, adapted)
    base_name = str(settings.get("base_model_name_or_path") or "")
    return Adapter(base_name, origin.get("stage", ""), list(origin.get("terms", [])))


def _misfits(module: Module, pair: Mapping[str, Tensor]) -> list[str]:
    """What is wrong with the A and B of a module."""
    if len(pair) < 2:
        return [f"{module.name} has lora_{next(iter(pair))} alone"]
    rank = pair["A"].shape[0]
    wanted = {"A": (rank, module.parts[0].inputs), "B": (module.rows, rank)}
    return [
        f"{module.name}.lora_{letter} has shape {tuple(pair[letter].shape)}, this model needs {shape}"
        for letter, shape in wanted.items()
        if tuple(pair[letter].shape) != shape
    ]


def _scale(settings: Mapping[str, Any], module: str, rank: int) -> float:
    """alpha / rank of a module, where PEFT's alpha_pattern may give it an alpha of its own."""
    alpha = settings.get("lora_alpha", 8)
    for pattern, of_pattern in (settings.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            alpha = of_pattern
            break
    return float(alpha) / (rank**0.5 if settings.get("use_rslora") else rank)


def _read_settings(directory: Path) -> dict[str, Any]:
    if not directory.is_dir():
        raise BundleError("no such directory", where=str(directory), remedy="Name the folder of an adapter")
    if not (directory / CONFIG).is_file():
        raise BundleError(f"has no {CONFIG}", where=str(directory), remedy="Name the folder of an adapter")
    settings = read_object(directory / CONFIG)
    where = str(directory / CONFIG)
    if settings.get("peft_type") != "LORA":
        raise BundleError(
            f"peft_type is {settings.get('peft_type')!r}, and only 'LORA' is read",
            where=where,
            remedy="Use a LoRA adapter",
        )
    for key, meaning in UNSUPPORTED.items():
        if settings.get(key):
            raise BundleError(f"has {meaning}", where=f"{where} {key}", remedy="Merge it with PEFT and use the result")
    if settings.get("bias", "none") != "none":
        raise BundleError("has trained biases", where=f"{where} bias", remedy="Merge it with PEFT and use the result")
    start = settings.get("init_lora_weights", True)
    if isinstance(start, str) and start not in ("gaussian", "eva", "orthogonal"):
        raise BundleError(
            f"began as {start!r}, which changes the base model too",
            where=f"{where} init_lora_weights",
            remedy="Merge it with PEFT and use the result",
        )
    return settings


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        pickles = sorted(file.name for file in path.parent.glob("*.bin"))
        raise BundleError(
            f"has its weights only as pickle ({', '.join(pickles)}), which can run any program when opened"
            if pickles
            else f"has no {path.name}",
            where=str(path.parent),
            remedy="Save it again with PEFT, which writes safetensors",
        )
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise BundleError(
            f"broken safetensors file: {error}", where=str(path), remedy="Fetch or train the adapter again"
        ) from error
