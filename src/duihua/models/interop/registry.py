"""All families, and the way from a decoder's config to config.json and back.

`family_of` gives the first family that holds a decoder exactly, so that a model stays readable by as many programs as its
shape allows. Fields that matter in training alone (dropouts that a family has no word for, how weights were started) are
kept in config.json under `duihua`, which other programs ignore.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from duihua.config import build, to_mapping
from duihua.errors import BundleError, ConfigError
from duihua.models.config import DecoderConfig
from duihua.models.interop.duihua import DUIHUA
from duihua.models.interop.family import ConfigReader, Family, Kind, TensorPlace
from duihua.models.interop.gpt2 import GPT2
from duihua.models.interop.llama import LLAMA
from duihua.models.interop.openai_gpt import OPENAI_GPT
from duihua.models.interop.qwen3 import QWEN3

FAMILIES: dict[str, Family] = {family.name: family for family in (QWEN3, LLAMA, GPT2, OPENAI_GPT, DUIHUA)}
"""model_type -> family, in the order in which they are asked; the last one holds everything."""

TRAINING_FIELDS = (
    "embedding_dropout",
    "attention_dropout",
    "residual_dropout",
    "initialisation",
    "initialiser_range",
)
"""Fields of DecoderConfig that do not change what a trained model computes."""


def family_of(config: DecoderConfig) -> str:
    """The name of the family that can hold a decoder exactly: qwen3, llama, gpt2, openai-gpt or else duihua."""
    return next(name for name, family in FAMILIES.items() if not family.reasons_against(config))


def reasons_against(config: DecoderConfig, family: str) -> list[str]:
    """Why a family cannot hold a decoder, a phrase for each field; empty where it can."""
    return FAMILIES[family].reasons_against(config)


def config_mapping(config: DecoderConfig, kind: Kind, dtype: str) -> dict[str, Any]:
    """config.json without the token ids, in the words of `family_of(config)`. The dtype stands under the old and the new
    key. What only training needs stands under `duihua`, where there is something."""
    family = FAMILIES[family_of(config)]
    mapping: dict[str, Any] = {
        "architectures": [family.architectures[kind]],
        "model_type": family.name,
        **family.write(config),
        "torch_dtype": dtype,
        "dtype": dtype,
    }
    if kind == "reward":
        mapping |= {"num_labels": 1, "id2label": {"0": "score"}, "label2id": {"score": 0}}
    again, _, _ = read_config(mapping, "config.json")
    lost = {name: value for name, value in vars(config).items() if value != getattr(again, name)}
    assert set(lost) <= set(TRAINING_FIELDS), f"{family.name} loses {sorted(lost)}"
    return mapping | ({"duihua": {"training": lost}} if lost else {})


def read_config(mapping: Mapping[str, Any], where: str) -> tuple[DecoderConfig, Kind, Family]:
    """The decoder's shape, the kind of bundle and the family out of a config.json. BundleError names everything that this
    decoder cannot be or do."""
    model_type = mapping.get("model_type")
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        named = mapping.get("architectures")
        shown = f" ({', '.join(map(str, named))})" if isinstance(named, list) and named else ""
        raise BundleError(
            f"model_type is {model_type!r}{shown}, and only {', '.join(FAMILIES)} are read",
            where=where,
            remedy="Use a bundle of duihua or a model directory of one of these families",
        )
    reader = ConfigReader(mapping, where)
    fields = family.read(reader)
    kind = _kind(reader, family, bool(fields.get("tied_embeddings")))
    reader.check()
    ours = mapping.get("duihua")
    training = ours.get("training") if isinstance(ours, Mapping) else None
    try:
        config = DecoderConfig(**fields)
        if isinstance(training, Mapping):
            known = {name: value for name, value in training.items() if name in TRAINING_FIELDS}
            config = build(DecoderConfig, to_mapping(config) | known, "duihua.training")
    except ConfigError as error:
        raise BundleError(f"{error.where} {error.problem}", where=where, remedy="Fetch config.json again") from error
    return config, kind, family


def tensor_layout(family: Family, config: DecoderConfig, kind: Kind) -> list[TensorPlace]:
    """Every tensor of a directory, heads included. A tied head is stored once; a reward bundle has no head for tokens."""
    tensors = family.layout(config)
    if kind == "reward":
        return [*tensors, TensorPlace("score.weight", ("score.weight",))]
    if config.tied_embeddings:
        return tensors
    return [*tensors, TensorPlace("lm_head.weight" if family.prefix else "head.weight", ("head.weight",))]


def _kind(reader: ConfigReader, family: Family, tied: bool) -> Kind:
    named = reader.mapping.get("architectures") or [family.architectures["policy"]]
    named = named if isinstance(named, list) else [named]
    for kind, architecture in family.architectures.items():
        if architecture in named:
            return kind
    if family.base_architecture in named and tied:
        return "policy"  # all of a tied model is there, under shorter names
    reader.problems.append(
        f"architecture {named[0]!r} is not read, only {', '.join(family.architectures.values())}"
        + (f"; {named[0]} has no head" if family.base_architecture in named else "")
    )
    return "policy"
