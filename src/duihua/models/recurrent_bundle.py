"""Recurrent language models as directories:

    config.json          model_type duihua-recurrent, the fields of RecurrentConfig, the terms of the data
    model.safetensors    each parameter once (a tied head is the embedding)
    words.json, characters.json or tokenizer.json     the vocabulary, as text/vocabulary.py writes it
    README.md            the model card

Why not the form of a decoder bundle: no other program has these networks, and a directory that claimed a known class would
be read wrongly. Everything is written aside first and config.json is moved last: where it stands, the rest is whole.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from duihua.config import build
from duihua.errors import BundleError, DuihuaError
from duihua.files import require_space, sync_directory, write_json
from duihua.models.device import check_device
from duihua.models.model_card import ModelCard, card_text, merge_terms
from duihua.models.recurrent import RecurrentLM
from duihua.models.recurrent_config import RecurrentConfig
from duihua.models.weights import WEIGHTS, read_object
from duihua.text.vocabulary import Vocabulary, load_vocabulary
from duihua.version import __version__

MODEL_TYPE, FORMAT = "duihua-recurrent", 1


@dataclass(frozen=True)
class RecurrentBundle:
    """A loaded model. terms: of the data that it was made from."""

    network: RecurrentLM
    vocabulary: Vocabulary
    config: RecurrentConfig
    directory: Path
    terms: list[dict[str, str]]


def is_recurrent_bundle(directory: str | Path) -> bool:
    """Whether config.json in the directory names a recurrent language model."""
    try:
        return read_object(Path(directory) / "config.json").get("model_type") == MODEL_TYPE
    except BundleError:
        return False


def save_recurrent(directory: Path, network: RecurrentLM, vocabulary: Vocabulary, card: ModelCard) -> None:
    """Write the model, its vocabulary and its card. Other files in the directory stay. Raises BundleError where it cannot."""
    directory = Path(directory)
    weights = {name: weight.detach().cpu().contiguous() for name, weight in network.named_parameters()}
    require_space(directory, int(1.05 * sum(w.numel() * w.element_size() for w in weights.values())) + (4 << 20))
    aside = directory / f".bundle.{os.getpid()}.part"
    try:
        aside.mkdir(parents=True)
        save_file(weights, aside / WEIGHTS, metadata={"format": "pt"})
        vocabulary.save(aside)
        terms = [dict(each) for each in merge_terms(card.terms)]
        ours = {"format": FORMAT, "version": __version__, "stage": card.stage, "terms": terms}
        write_json(aside / "config.json", {"model_type": MODEL_TYPE, **asdict(network.config), "duihua": ours})
        shutil.copymode(aside / "config.json", aside / WEIGHTS)
        parameters = sum(weight.numel() for weight in weights.values())
        text = card_text(card, parameters, asdict(network.config), __version__)
        (aside / "README.md").write_text(text, encoding="utf-8")
        (directory / "config.json").unlink(missing_ok=True)
        for file in sorted(aside.iterdir(), key=lambda file: file.name == "config.json"):
            file.replace(directory / file.name)
        sync_directory(directory)
    except OSError as error:
        problem = f"cannot write the bundle: {error.strerror or error}"
        raise BundleError(problem, where=str(directory), remedy="Free some space or choose another folder") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def load_recurrent(directory: str | Path, device: str = "cpu") -> RecurrentBundle:
    """Read what `save_recurrent` wrote. Raises BundleError for what is missing, broken or another kind of model."""
    check_device(device)
    directory = Path(directory)
    stored = read_object(directory / "config.json")
    if stored.pop("model_type", None) != MODEL_TYPE:
        raise BundleError(
            "is not a recurrent language model", where=str(directory), remedy="Name a folder that `recurrent` wrote"
        )
    ours = stored.pop("duihua", {})
    if not isinstance(ours, dict) or ours.get("format") != FORMAT:
        raise BundleError(
            f"a bundle of another format than {FORMAT}", where=str(directory), remedy="Train the model again"
        )
    try:
        config = build(RecurrentConfig, stored, "config.json")
    except DuihuaError as error:
        raise BundleError(error.problem, where=str(directory / "config.json"), remedy=error.remedy) from error
    vocabulary = load_vocabulary(directory)
    if vocabulary.vocabulary_size != config.vocabulary_size:
        raise BundleError(
            f"the vocabulary has {vocabulary.vocabulary_size} ids, the embedding {config.vocabulary_size} rows",
            where=str(directory),
            remedy="Copy all files from the same place",
        )
    with torch.device("meta"):
        network = RecurrentLM(config)
    _fill(network, directory / WEIGHTS)
    terms: list[dict[str, str]] = [dict(each) for each in ours.get("terms", [])]
    return RecurrentBundle(network.to(device).eval(), vocabulary, config, directory, terms)


def _fill(network: RecurrentLM, path: Path) -> None:
    """Put the stored tensors in place. Raises BundleError naming every one that is missing or does not fit."""
    try:
        found: dict[str, Any] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise BundleError(
            f"cannot be read: {error}", where=str(path), remedy="Copy or train the model again"
        ) from error
    expected = {name: tuple(weight.shape) for name, weight in network.named_parameters()}
    shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
    wrong = [
        f"{name} (expected {expected.get(name, 'none')}, found {shapes.get(name, 'none')})"
        for name in sorted({*expected, *shapes})
        if expected.get(name) != shapes.get(name)
    ]
    if wrong:
        raise BundleError(
            f"does not fit config.json: {', '.join(wrong)}",
            where=str(path),
            remedy="Copy all files from the same place",
        )
    network.load_state_dict(found, strict=False, assign=True)
    if network.config.tied_embeddings:
        network.head.weight = network.embedding.weight
    for weight in network.parameters():
        weight.requires_grad_(True)
    assert not any(isinstance(weight, nn.Parameter) and weight.is_meta for weight in network.parameters())
