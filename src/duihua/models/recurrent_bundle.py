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

import torch
from safetensors.torch import save_file
from torch import nn

from duihua.config import build
from duihua.errors import BundleError, DuihuaError
from duihua.files import require_space, write_json
from duihua.models.aside import written_aside
from duihua.models.device import check_device
from duihua.models.model_card import ModelCard, card_text, origin
from duihua.models.recurrent import RecurrentLM
from duihua.models.recurrent_config import RecurrentConfig
from duihua.models.weights import WEIGHTS, fitting_tensors, read_object
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
    shape = asdict(network.config)
    with written_aside(directory) as aside:
        save_file(weights, aside / WEIGHTS, metadata={"format": "pt"})
        with open(aside / WEIGHTS, "rb") as file:
            os.fsync(file.fileno())
        vocabulary.save(aside)
        write_json(aside / "config.json", {"model_type": MODEL_TYPE, **shape, "duihua": origin(card, FORMAT)})
        shutil.copymode(aside / "config.json", aside / WEIGHTS)  # safetensors makes it readable by the owner alone
        parameters = sum(weight.numel() for weight in weights.values())
        text = card_text(card, parameters, shape, __version__)
        (aside / "README.md").write_text(text, encoding="utf-8")


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
    found = fitting_tensors(path, dict(network.named_parameters()), "config.json", "Copy or train the model again")
    network.load_state_dict(found, strict=False, assign=True)
    if network.config.tied_embeddings:
        network.head.weight = network.embedding.weight
    for weight in network.parameters():
        weight.requires_grad_(True)
    assert not any(isinstance(weight, nn.Parameter) and weight.is_meta for weight in network.parameters())
