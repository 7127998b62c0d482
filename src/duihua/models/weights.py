"""A network's weights as the tensors of a directory, and back.

Why one pass over a table: a family's layout says which of our parameters a stored tensor holds, in which order and
whether turned, so that saving, loading and the list of what is missing follow from the same lines. Only safetensors is
read, because a pickle file can run any program when it is opened. Everything that is wrong with a directory's tensors
(missing, without a place, of another shape) is named at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from duihua.errors import BundleError, DuihuaError
from duihua.files import read_json, sha256_file, sha256_json
from duihua.models.config import DecoderConfig
from duihua.models.interop.family import Family, Kind, TensorPlace
from duihua.models.interop.registry import tensor_layout

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
READABLE = ("F64", "F32", "F16", "BF16")
NAMED = 2
"""Most tensors of one place in different layers that are named one by one where all have the same wrong shape."""
_NUMBER = re.compile(r"\.\d+\.")


def stored_tensors(
    network: nn.Module, family: Family, config: DecoderConfig, kind: Kind, dtype: torch.dtype
) -> dict[str, Tensor]:
    """The directory's tensors of a `Decoder` or `ScoredDecoder`, in memory of their own where they are not ours as is."""
    ours = _parameters(network)
    return {
        place.name: _joined([ours[name].detach().cpu().to(dtype) for name in place.ours], place.turned)
        for place in tensor_layout(family, config, kind)
    }


def fill(
    network: nn.Module, directory: Path, family: Family, config: DecoderConfig, kind: Kind, dtype: torch.dtype
) -> None:
    """Put the directory's tensors in place of the network's empty ones (of the meta device).

    Tensors of the base model, whose names lack the family's prefix, are taken for what they are. BundleError names what is
    missing, what has no place here and what has another shape.
    """
    ours = _parameters(network)
    places = {place.name: place for place in tensor_layout(family, config, kind)}
    assert {name for place in places.values() for name in place.ours} >= ours.keys() - {"head.weight"}
    found: dict[str, Tensor] = {}
    problems: list[str] = []
    misshapen: dict[tuple[str, tuple[int, ...], tuple[int, ...]], list[str]] = {}
    strangers: list[str] = []
    second_head: Tensor | None = None
    for file, names in weight_files(directory):
        try:
            with safe_open(file, framework="pt") as tensors:
                held = set(tensors.keys())
                for stored in sorted(held if names is None else names & held):
                    name = stored if stored in places else family.prefix + stored
                    if name not in places:
                        if stored == "lm_head.weight":
                            second_head = tensors.get_tensor(stored) if kind == "policy" else None
                        elif not family.passed_over.search(stored):
                            strangers.append(stored)
                        continue
                    place = places[name]
                    part = tensors.get_slice(stored)
                    shape, expected = tuple(part.get_shape()), _shape([ours[name] for name in place.ours], place.turned)
                    if shape != expected:
                        misshapen.setdefault((_NUMBER.sub(".*.", stored), shape, expected), []).append(stored)
                    elif part.get_dtype() not in READABLE:
                        problems.append(
                            f"{stored} has numbers of type {part.get_dtype()}, read are {', '.join(READABLE)}"
                        )
                    else:
                        _split(tensors.get_tensor(stored).to(dtype, copy=True), place, ours, found)
                        continue
                    found |= {name: ours[name] for name in place.ours}  # not missing, but wrong
        except (SafetensorError, OSError) as error:
            raise BundleError(
                f"broken safetensors file: {error}", where=str(file), remedy="Fetch or train the model again"
            ) from error
    missing = [place.name for place in places.values() if not all(name in found for name in place.ours)]
    if missing:
        problems.insert(0, f"{len(missing)} tensors are missing: {', '.join(sorted(missing))}")
    problems += [
        f"{', '.join(names) if len(names) <= NAMED else f'{pattern} ({len(names)} times)'} has shape {shape}, "
        f"config.json expects {expected}"
        for (pattern, shape, expected), names in misshapen.items()
    ]
    if strangers:
        problems.append(f"holds {', '.join(sorted(strangers))}, for which a {family.title} decoder has no place")
    if not problems and second_head is not None and not torch.equal(second_head.to(dtype), found["embedding.weight"]):
        problems.append("config.json ties the head to the embedding, and lm_head.weight is another matrix")
    if problems:
        raise BundleError(
            "; ".join(problems),
            where=str(directory),
            remedy="Fetch config.json and all weight files from the same place",
        )
    _assign(network, found)


def weights_fingerprint(directory: Path) -> str:
    """Hex SHA-256 of a bundle's weights, in one file or in several: what was made with a model is kept under it."""
    sums = [sha256_file(file) for file, _ in weight_files(directory)]
    return sums[0] if len(sums) == 1 else sha256_json(sums)


def weight_files(directory: Path) -> list[tuple[Path, set[str] | None]]:
    """Each safetensors file of a directory with the names to take from it (None: all)."""
    if (directory / WEIGHTS).is_file():
        return [(directory / WEIGHTS, None)]
    if (directory / INDEX).is_file():
        weight_map = read_object(directory / INDEX).get("weight_map")
        if not isinstance(weight_map, Mapping) or not weight_map:
            raise BundleError("has no weight_map", where=str(directory / INDEX), remedy="Fetch the file again")
        shards: dict[str, set[str]] = {}
        for name, shard in weight_map.items():
            if not isinstance(shard, str) or Path(shard).name != shard:
                raise BundleError(
                    f"{shard!r} is not a file of this directory",
                    where=str(directory / INDEX),
                    remedy="Fetch the file again",
                )
            shards.setdefault(shard, set()).add(name)
        absent = [shard for shard in sorted(shards) if not (directory / shard).is_file()]
        if absent:
            problem = f"of {len(shards)} weight files, these are missing: {', '.join(absent)}"
            raise BundleError(problem, where=str(directory), remedy="Fetch them from the same place")
        return [(directory / shard, shards[shard]) for shard in sorted(shards)]
    pickles = [file.name for form in ("*.bin", "*.pt", "*.pth", "*.ckpt") for file in sorted(directory.glob(form))]
    if pickles:
        raise BundleError(
            f"has its weights only as pickle ({', '.join(pickles)}), which can run any program when opened",
            where=str(directory),
            remedy="Fetch the model as safetensors. If you trust its maker, transformers converts it: "
            "AutoModelForCausalLM.from_pretrained(THIS, weights_only=True).save_pretrained(NEW)",
        )
    if any(directory.glob("model-*-of-*.safetensors")):
        raise BundleError(f"has weight files, but no {INDEX}", where=str(directory), remedy="Fetch that file as well")
    raise BundleError(f"has no {WEIGHTS}", where=str(directory), remedy="Name a bundle or a model directory")


def fitting_tensors(path: Path, wanted: Mapping[str, Tensor], described: str, remedy: str) -> dict[str, Tensor]:
    """All tensors of a file, which must be like those `wanted`, name by name and shape by shape. described: the files that say
    what the network is; remedy: where the file cannot be read. BundleError names all that is missing or does not fit."""
    try:
        found: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise BundleError(f"cannot be read: {error}", where=str(path), remedy=remedy) from error
    expected = {name: tuple(weight.shape) for name, weight in wanted.items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
    wrong = [
        f"{name} (expected {expected.get(name, 'none')}, found {shapes.get(name, 'none')})"
        for name in sorted({*expected, *shapes})
        if expected.get(name) != shapes.get(name)
    ]
    if wrong:
        raise BundleError(
            f"does not fit {described}: {', '.join(wrong)}",
            where=str(path),
            remedy="Copy all files from the same place",
        )
    return found


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object, or BundleError with the place."""
    if not path.parent.is_dir():
        raise BundleError("no such directory", where=str(path.parent), remedy="Name a bundle or a model directory")
    if not path.is_file():
        inside = sorted(str(each.parent) for each in path.parent.glob(f"*/{path.name}"))
        remedy = f"Name what is inside it: {', '.join(inside[:5])}" if inside else "Name a bundle or a model directory"
        raise BundleError(f"has no {path.name}", where=str(path.parent), remedy=remedy)
    try:
        value = read_json(path)
    except DuihuaError as error:
        raise BundleError(error.problem, where=error.where, remedy=error.remedy) from error
    if not isinstance(value, dict):
        raise BundleError("expected a JSON object", where=str(path), remedy="Fetch the file again")
    return value


def _parameters(network: nn.Module) -> dict[str, Tensor]:
    """Parameters by the names that layouts use: a scored decoder's trunk as if it stood alone."""
    return {name.removeprefix("decoder."): weight for name, weight in network.named_parameters(remove_duplicate=False)}


def _joined(parts: Sequence[Tensor], turned: bool) -> Tensor:
    whole = torch.cat(list(parts)) if len(parts) > 1 else parts[0]
    return (whole.t() if turned else whole).contiguous()


def _shape(parts: Sequence[Tensor], turned: bool) -> tuple[int, ...]:
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    return shape[::-1] if turned else shape


def _split(whole: Tensor, place: TensorPlace, ours: Mapping[str, Tensor], found: dict[str, Tensor]) -> None:
    """The inverse of `_joined`, into `found`."""
    if place.turned:
        whole = whole.t().contiguous()
    if len(place.ours) == 1:
        found[place.ours[0]] = whole
        return
    start = 0
    for name in place.ours:
        found[name] = whole[start : start + ours[name].shape[0]].clone()
        start += ours[name].shape[0]


def _assign(network: nn.Module, found: Mapping[str, Tensor]) -> None:
    """Make the tensors the network's parameters; one that two names share stays shared, and a head that nobody reads
    (a reward model's) is the embedding again, so that it takes no memory."""
    tied = "head.weight" not in found
    state = {
        name: found["embedding.weight" if short == "head.weight" and tied else short]
        for name, _ in network.named_parameters(remove_duplicate=False)
        for short in (name.removeprefix("decoder."),)
    }
    network.load_state_dict(state, strict=False, assign=True)
    if tied:
        decoder = network.get_submodule("decoder") if hasattr(network, "decoder") else network
        head, embedding = decoder.get_submodule("head"), decoder.get_submodule("embedding")
        head.weight = embedding.weight
    assert not any(weight.is_meta for weight in network.parameters())
