"""Translators as directories.

    config.json  model.safetensors  tokenizer.json  tokenizer_config.json  README.md

config.json holds `model_type` (`duihua-transformer` or `duihua-recurrent-translator`), the network's settings and the two
languages. Why a type of our own and not Marian's: no class of transformers has the paper's interleaved sinusoids or a
recurrent translator, and a directory that claimed one would be read wrongly without a word. Tensors have the names of our
modules, a matrix that is used twice is stored once. Files are written aside, synced and renamed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from duihua.config.build import build
from duihua.errors import BundleError, ConfigError
from duihua.files import require_space, write_json
from duihua.models.aside import written_aside
from duihua.models.device import check_device
from duihua.models.model_card import ModelCard, card_text, origin
from duihua.models.recurrent_translator import RecurrentTranslator
from duihua.models.recurrent_translator_config import RecurrentTranslatorConfig
from duihua.models.transformer import Transformer
from duihua.models.transformer_config import TransformerConfig
from duihua.models.translator import Translator
from duihua.models.weights import READABLE, WEIGHTS, read_object
from duihua.text.tokenizer import AbsentTokenizer, Tokenizer
from duihua.version import __version__

FORMAT = 1
"""Number of the layout; raised when an older duihua could not read a newer directory rightly."""
TRANSFORMER, RECURRENT = "duihua-transformer", "duihua-recurrent-translator"
TranslatorNetwork: TypeAlias = Transformer | RecurrentTranslator


@dataclass(frozen=True)
class TranslatorBundle:
    """A loaded translator, in evaluation mode. languages: of source and target. terms: of the data that it was made from."""

    network: TranslatorNetwork
    tokenizer: Tokenizer
    config: TransformerConfig | RecurrentTranslatorConfig
    languages: tuple[str, str]
    directory: Path
    terms: list[dict[str, str]]


def save_translator(
    directory: Path, network: Translator, tokenizer: Tokenizer, languages: tuple[str, str], card: ModelCard
) -> None:
    """Write a network with its tokenizer and card into `directory`. Other files in it stay; a new directory appears whole or
    not at all. Raises BundleError where it cannot be written."""
    if not isinstance(network, Transformer | RecurrentTranslator):
        raise TypeError(f"a bundle holds a Transformer or a RecurrentTranslator, not {type(network).__name__}")
    weights = {name: weight.detach().cpu().contiguous() for name, weight in network.named_parameters()}
    directory = Path(directory)
    require_space(directory, int(1.05 * sum(w.numel() * w.element_size() for w in weights.values())) + (4 << 20))
    with written_aside(directory) as aside:
        save_file(weights, aside / WEIGHTS, metadata={"format": "pt"})
        with open(aside / WEIGHTS, "rb") as file:
            os.fsync(file.fileno())
        shape = asdict(network.config)
        write_json(
            aside / "config.json",
            {
                "model_type": TRANSFORMER if isinstance(network, Transformer) else RECURRENT,
                "languages": list(languages),
                "network": shape,
                "duihua": origin(card, FORMAT),
            },
        )
        shutil.copymode(aside / "config.json", aside / WEIGHTS)  # safetensors makes it readable by the owner alone
        tokenizer.save(aside)
        parameters = sum(weight.numel() for weight in weights.values())
        text = card_text(card, parameters, shape, __version__, library="duihua", task="translation")
        (aside / "README.md").write_text(text, encoding="utf-8")


def is_translator(directory: str | Path) -> bool:
    """Whether the directory's config.json names one of our translators; false where it cannot be read."""
    try:
        mapping = read_object(Path(directory) / "config.json")
    except BundleError:
        return False
    return mapping.get("model_type") in (TRANSFORMER, RECURRENT)


def load_translator(directory: str | Path, device: str = "cpu") -> TranslatorBundle:
    """Read what `save_translator` wrote. Raises BundleError for whatever is missing, broken or of another kind; what is wrong
    with the tensors is named all at once; ConfigError for a device that is not there."""
    check_device(device)
    directory = Path(directory)
    place = directory / "config.json"
    mapping = read_object(place)
    kind = mapping.get("model_type")
    if kind not in (TRANSFORMER, RECURRENT):
        raise BundleError(
            f"a model of type {kind!r} is no translator",
            where=str(place),
            remedy="Name a folder that `duihua translate train` wrote",
        )
    ours = _our_part(mapping, place)
    languages = mapping.get("languages")
    if not (isinstance(languages, list) and len(languages) == 2 and all(isinstance(one, str) for one in languages)):
        raise BundleError("languages should be two names", where=str(place), remedy="Copy the folder again")
    network = _empty_network(kind, mapping.get("network"), place)
    tokenizer = Tokenizer.load(directory)
    if isinstance(tokenizer, AbsentTokenizer):
        raise BundleError(
            "has no tokenizer that can be read", where=str(directory), remedy="Copy all files of the folder"
        )
    if tokenizer.vocabulary_size > network.config.vocabulary_size:
        raise BundleError(
            f"the tokenizer has {tokenizer.vocabulary_size} ids, the embedding {network.config.vocabulary_size} rows",
            where=str(directory),
            remedy="Copy the tokenizer that the model was trained with",
        )
    _fill(network, directory / WEIGHTS)
    return TranslatorBundle(
        network.to(device).eval(),
        tokenizer,
        network.config,
        (languages[0], languages[1]),
        directory,
        [dict(terms) for terms in ours.get("terms", [])],
    )


def _our_part(mapping: Mapping[str, Any], place: Path) -> dict[str, Any]:
    """The `duihua` part of config.json; BundleError for another layout than ours."""
    ours = mapping.get("duihua")
    ours = ours if isinstance(ours, dict) else {}
    if ours.get("format") != FORMAT:
        made_by = ours.get("version", "another version")
        raise BundleError(
            f"format {ours.get('format')!r}, written by duihua {made_by}; this is {__version__}, which reads {FORMAT}",
            where=str(place),
            remedy=f"Install the duihua that wrote it ({made_by}), or train the translator again",
        )
    return ours


def _empty_network(kind: Any, settings: Any, place: Path) -> TranslatorNetwork:
    """The network of config.json; its weights say nothing yet. The global random state is left as it was."""
    where = f"{place}: network"
    if not isinstance(settings, Mapping) or not settings.get("vocabulary_size"):
        raise BundleError("has no settings of a network", where=where, remedy="Copy the folder again")
    try:
        with torch.random.fork_rng(devices=[]):
            if kind == TRANSFORMER:
                return Transformer(build(TransformerConfig, settings, where))
            return RecurrentTranslator(build(RecurrentTranslatorConfig, settings, where))
    except ConfigError as error:
        raise BundleError(error.problem, where=error.where or where, remedy=error.remedy) from error


def _fill(network: nn.Module, path: Path) -> None:
    """Put the stored tensors in place. Raises BundleError naming every one that is missing, strange or does not fit."""
    if not path.is_file():
        raise BundleError(f"has no {WEIGHTS}", where=str(path.parent), remedy="Copy all files of the folder")
    ours = dict(network.named_parameters())
    found: dict[str, Tensor] = {}
    problems: list[str] = []
    try:
        with safe_open(path, framework="pt") as tensors:
            stored = set(tensors.keys())
            if missing := sorted(ours.keys() - stored):
                problems.append(f"{len(missing)} tensors are missing: {', '.join(missing)}")
            if strangers := sorted(stored - ours.keys()):
                problems.append(f"{len(strangers)} have no place: {', '.join(strangers)}")
            for name in sorted(stored & ours.keys()):
                part = tensors.get_slice(name)
                shape, expected = tuple(part.get_shape()), tuple(ours[name].shape)
                if shape != expected:
                    problems.append(f"{name} has shape {shape}, config.json expects {expected}")
                elif part.get_dtype() not in READABLE:
                    problems.append(f"{name} has numbers of type {part.get_dtype()}, read are {', '.join(READABLE)}")
                else:
                    found[name] = tensors.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise BundleError(
            f"broken safetensors file: {error}", where=str(path), remedy="Copy or train the model again"
        ) from error
    if problems:
        raise BundleError("; ".join(problems), where=str(path), remedy="Copy all files from the same place")
    with torch.no_grad():
        for name, weight in ours.items():
            weight.copy_(found[name])
