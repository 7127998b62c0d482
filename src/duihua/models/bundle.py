"""Bundles: a model as a directory that is at the same time a Hugging Face model directory.

    config.json  model.safetensors  tokenizer.json  tokenizer_config.json  chat_template.jinja
    generation_config.json  README.md

A bundle is of the first family that computes what the decoder computes (models/interop/registry.py): by default a policy
is a `Qwen3ForCausalLM` directory and a reward model a `Qwen3ForSequenceClassification` one (`score.weight`, no bias), whose
normalisation stands in config.json under `duihua`, a key that other programs ignore. A directory of these families from
elsewhere loads in the same way. Files are written aside, synced and renamed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from duihua.errors import BundleError
from duihua.files import require_space, write_json
from duihua.models.aside import written_aside
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder
from duihua.models.device import check_device
from duihua.models.heads import ScoredDecoder
from duihua.models.interop.family import Kind
from duihua.models.interop.registry import FAMILIES, config_mapping, family_of, read_config
from duihua.models.model_card import ModelCard, card_text, merge_terms, origin
from duihua.models.versions import bundle_of
from duihua.models.weights import DTYPES, WEIGHTS, fill, read_object, stored_tensors
from duihua.text.tokenizer import AbsentTokenizer, Tokenizer
from duihua.text.tokenizer_files import read_stop_ids
from duihua.version import __version__

FORMAT = 1
"""Number of the bundle layout; raised when an older duihua could not read a newer bundle rightly."""


@dataclass(frozen=True)
class Normalisation:
    """A reward model's scores less `mean`, over `standard_deviation`, are about N(0, 1) on the reference policy."""

    mean: float
    standard_deviation: float


@dataclass(frozen=True)
class Bundle:
    """A loaded model. network: `Decoder` when kind is "policy", `ScoredDecoder` when it is "reward".

    tokenizer: raises BundleError at first use where the directory has none. terms: of the data that the model was made
    from, a mapping a source (name, language, licence, homepage, attribution, note). stop_ids: ids that end a
    reply. normalisation: of a reward model of ours. prompts: openings that it was taught to answer, where the bundle says some.
    """

    network: Decoder | ScoredDecoder
    tokenizer: Tokenizer
    config: DecoderConfig
    directory: Path
    kind: Kind
    terms: list[dict[str, str]]
    stop_ids: tuple[int, ...]
    normalisation: Normalisation | None = None
    prompts: tuple[str, ...] = ()

    @property
    def policy(self) -> Decoder:
        """The decoder; BundleError where this is a reward bundle."""
        if isinstance(self.network, Decoder):
            return self.network
        raise BundleError(
            "this is a reward model, which writes no text", where=str(self.directory), remedy="Use a policy"
        )

    @property
    def reward(self) -> ScoredDecoder:
        """The scored decoder; BundleError where this is a policy bundle."""
        if isinstance(self.network, ScoredDecoder):
            return self.network
        raise BundleError("this model has no score", where=str(self.directory), remedy="Use a reward bundle")


# -- saving -----------------------------------------------------------------------------------------------------------


def save_bundle(
    directory: Path,
    network: nn.Module,
    tokenizer: Tokenizer,
    card: ModelCard,
    dtype: str = "float32",
    *,
    normalisation: Normalisation | None = None,
) -> None:
    """Write `network` (a `Decoder` or `ScoredDecoder`) with its tokenizer and card into `directory`.

    dtype: "float32", "bfloat16" or "float16", of the stored weights. Other files in the directory stay. A new directory
    appears whole or not at all; in an existing one config.json is put last, so that half a bundle is never read as one.
    """
    if not isinstance(network, Decoder | ScoredDecoder):
        raise TypeError(f"a bundle holds a Decoder or a ScoredDecoder, not {type(network).__name__}")
    directory = Path(directory)
    kind: Kind = "policy" if isinstance(network, Decoder) else "reward"
    family = FAMILIES[family_of(network.config)]
    weights = stored_tensors(network, family, network.config, kind, DTYPES[dtype])
    require_space(directory, int(1.05 * sum(w.numel() * w.element_size() for w in weights.values())) + (4 << 20))
    with written_aside(directory) as aside:
        save_file(weights, aside / WEIGHTS, metadata={"format": "pt"})
        with open(aside / WEIGHTS, "rb") as file:
            os.fsync(file.fileno())
        config = config_mapping(network.config, kind, dtype) | _token_settings(tokenizer)
        config["duihua"] = {
            **origin(card, FORMAT),
            **({"normalisation": asdict(normalisation)} if normalisation else {}),
            **config.get("duihua", {}),
        }
        write_json(aside / "config.json", config)
        shutil.copymode(aside / "config.json", aside / WEIGHTS)  # safetensors makes it readable by the owner alone
        if not isinstance(tokenizer, AbsentTokenizer):
            tokenizer.save(aside)
            ends = {"eos_token_id": list(tokenizer.stop_ids), "pad_token_id": tokenizer.pad_id}
            write_json(aside / "generation_config.json", ends)
        parameters = sum(weight.numel() for weight in weights.values())
        text = card_text(card, parameters, asdict(network.config), __version__)
        (aside / "README.md").write_text(text, encoding="utf-8")


def _token_settings(tokenizer: Tokenizer) -> dict[str, Any]:
    if isinstance(tokenizer, AbsentTokenizer):
        return {}
    # pad_token_id also tells transformers' reward model which tokens to pass over at the end of a row.
    return {"bos_token_id": None, "eos_token_id": tokenizer.im_end_id, "pad_token_id": tokenizer.pad_id}


# -- loading ----------------------------------------------------------------------------------------------------------


def load_bundle(directory: str | Path, device: str = "cpu", dtype: str = "float32") -> Bundle:
    """Read a bundle of ours or a directory of one of the families, sharded or not, tied or not, of any float dtype.

    A folder with versions (models/versions.py) means the promoted one. dtype: of the weights in memory. Raises BundleError
    for whatever is missing, broken or not supported; what is wrong with the settings or the tensors is named all at once;
    ConfigError for a device that is not there.
    """
    check_device(device)
    directory = bundle_of(directory)
    mapping = read_object(directory / "config.json")
    ours = _read_ours(mapping, directory)
    config, kind, family = read_config(mapping, str(directory / "config.json"))
    tokenizer = Tokenizer.load(directory)
    if not isinstance(tokenizer, AbsentTokenizer) and tokenizer.vocabulary_size > config.vocabulary_size:
        raise BundleError(
            f"the tokenizer has {tokenizer.vocabulary_size} ids, the embedding {config.vocabulary_size} rows",
            where=str(directory),
            remedy="Copy the tokenizer that the model was trained with",
        )
    with torch.device("meta"):  # shapes only: no time is spent on random values that are replaced at once
        network: Decoder | ScoredDecoder = Decoder(config)
        if isinstance(network, Decoder) and kind == "reward":
            network = ScoredDecoder(network)
    fill(network, directory, family, config, kind, DTYPES[dtype])
    stop_ids = read_stop_ids(directory) if isinstance(tokenizer, AbsentTokenizer) else tokenizer.stop_ids
    return Bundle(
        network=network.to(device).eval(),
        tokenizer=tokenizer,
        config=config,
        directory=directory,
        kind=kind,
        terms=ours.get("terms", []),
        stop_ids=stop_ids,
        normalisation=Normalisation(**ours["normalisation"]) if "normalisation" in ours else None,
        prompts=tuple(ours.get("prompts", ())),
    )


def _read_ours(mapping: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """The `duihua` part of config.json, empty for a foreign directory; BundleError for another layout than ours."""
    ours = mapping.get("duihua", {})
    found = ours.get("format") if isinstance(ours, dict) else ours
    if ours and found != FORMAT:
        made_by = ours.get("version", "another version") if isinstance(ours, dict) else "another version"
        raise BundleError(
            f"a bundle of format {found!r}, written by duihua {made_by}; this is {__version__}, which reads {FORMAT}",
            where=str(directory),
            remedy=f"Install the duihua that wrote it ({made_by}), or train the model again",
        )
    return dict(ours)


__all__ = ["Bundle", "ModelCard", "Normalisation", "load_bundle", "merge_terms", "save_bundle"]
