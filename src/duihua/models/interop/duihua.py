"""Decoders that no other program computes: the fast profile, and whatever a student puts together.

config.json holds the whole DecoderConfig under `decoder`, tensors have the names of our own parameters, and model_type is
`duihua`, so that other programs refuse the directory instead of reading it wrongly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from duihua.config import build, to_mapping
from duihua.errors import ConfigError
from duihua.models.config import DecoderConfig
from duihua.models.decoder import parameter_names
from duihua.models.interop.family import ConfigReader, Family, TensorPlace

_PLACEHOLDER = DecoderConfig(vocabulary_size=1)


def _write(config: DecoderConfig) -> dict[str, Any]:
    return {"vocab_size": config.vocabulary_size, "decoder": to_mapping(config)}


def _read(reader: ConfigReader) -> dict[str, Any]:
    found = reader.mapping.get("decoder")
    if not isinstance(found, Mapping):
        reader.problems.append("model_type is 'duihua', and the shape is missing under 'decoder'")
        return vars(_PLACEHOLDER)
    try:
        return vars(build(DecoderConfig, found, "decoder"))
    except ConfigError as error:
        reader.problems.append(f"{error.where}: {error.problem}")
        return vars(_PLACEHOLDER)


def _layout(config: DecoderConfig) -> list[TensorPlace]:
    return [TensorPlace(name, (name,)) for name in parameter_names(config) if name != "head.weight"]


DUIHUA = Family(
    name="duihua",
    title="Duihua",
    architectures={"policy": "DuihuaForCausalLM", "reward": "DuihuaForSequenceClassification"},
    base_architecture="DuihuaModel",
    prefix="",
    passed_over=re.compile(r"(?!)"),
    limits={},
    further_limits=lambda config: [],
    write=_write,
    read=_read,
    layout=_layout,
)
