"""Rotary positions in the words of config.json, for the families that have them.

Two spellings are about: `rope_theta` with `rope_scaling` (transformers 4) and `rope_parameters` with both inside
(transformers 5). Both are read and both are written, so that old and new programs read the same numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from duihua.errors import ConfigError
from duihua.models.config import DecoderConfig, RopeKind, RopeScaling
from duihua.models.interop.family import ConfigReader

_OPTIONAL = {
    "llama3": {"low_freq_factor": "low_frequency_factor", "high_freq_factor": "high_frequency_factor"},
    "yarn": {
        "beta_fast": "beta_fast",
        "beta_slow": "beta_slow",
        "attention_factor": "attention_factor",
        "mscale": "mscale",
        "mscale_all_dim": "mscale_all_dim",
    },
    "linear": {},
    "dynamic": {},
}
"""Kind -> the numbers that it has besides the factor: their key and our field."""
_KINDS: dict[str, RopeKind] = {"linear": "linear", "dynamic": "dynamic", "yarn": "yarn", "llama3": "llama3"}


def write_rope(config: DecoderConfig) -> dict[str, Any]:
    """max_position_embeddings, rope_theta, rope_parameters and, where there is scaling, rope_scaling."""
    scaling = config.rope_scaling
    context = config.context
    mapping: dict[str, Any] = {"rope_type": "default"}
    if scaling is not None:
        mapping = {"rope_type": scaling.kind, "factor": scaling.factor}
        if scaling.kind == "dynamic":
            context = scaling.original_context or context  # the model's own; longer texts are what the factor is for
        elif scaling.original_context is not None:
            mapping["original_max_position_embeddings"] = scaling.original_context
        for key, field in _OPTIONAL[scaling.kind].items():
            if getattr(scaling, field) is not None:
                mapping[key] = getattr(scaling, field)
        if scaling.kind == "yarn":
            mapping["truncate"] = scaling.truncate
    return {
        "max_position_embeddings": context,
        "rope_theta": config.rope_theta,
        "rope_parameters": mapping | {"rope_theta": config.rope_theta},
        **({"rope_scaling": mapping} if scaling is not None else {}),
    }


def rope_limits(config: DecoderConfig) -> list[str]:
    """What this spelling cannot say."""
    scaling = config.rope_scaling
    if scaling is None:
        return []
    said = {"kind", "factor", "original_context", *_OPTIONAL[scaling.kind].values()}
    said |= {"truncate"} if scaling.kind == "yarn" else set()
    found = [
        f"rope_scaling.{field.name} means nothing with kind {scaling.kind}"
        for field in dataclasses.fields(scaling)
        if field.name not in said and getattr(scaling, field.name) != field.default
    ]
    original = scaling.original_context
    if scaling.kind == "dynamic" and (original is None or round(original * scaling.factor) != config.context):
        found.append("with dynamic rope_scaling the context must be original_context times the factor")
    return found


def read_rope(reader: ConfigReader) -> dict[str, Any]:
    """The fields context, rope_theta and rope_scaling."""
    context = reader.whole("max_position_embeddings")
    settings = _settings(reader)
    inner = ConfigReader(settings, reader.where)
    theta = inner.real("rope_theta", default=reader.real("rope_theta", default=10_000.0))
    kind = settings.get("rope_type", settings.get("type", "default"))
    partial = settings.get("partial_rotary_factor", reader.mapping.get("partial_rotary_factor"))
    if partial not in (None, 1, 1.0):
        reader.problems.append(f"partial_rotary_factor: rotating a part of each head ({partial!r}) is not supported")
    scaling: RopeScaling | None = None
    if isinstance(kind, str) and kind in _OPTIONAL:
        original: int | None = None
        if any("original_max_position_embeddings" in place for place in (settings, reader.mapping)):
            top = "original_max_position_embeddings" in reader.mapping
            original = (reader if top else inner).whole("original_max_position_embeddings")
        factor = inner.real("factor", default=context / original if kind == "yarn" and original else None)
        fields: dict[str, Any] = {
            field: inner.real(key) for key, field in _OPTIONAL[kind].items() if settings.get(key) is not None
        }
        if kind == "yarn":
            fields["truncate"] = inner.flag("truncate", default=True)
        if kind == "dynamic":
            original, context = context, round(context * factor)
        try:
            scaling = RopeScaling(kind=_KINDS[kind], factor=factor, original_context=original, **fields)
        except ConfigError as error:
            inner.problems.append(f"{error.where} {error.problem}")
    elif kind != "default":
        reader.problems.append(f"rotary positions of type {kind!r} are not supported")
    reader.problems += [f"rope_parameters {problem}" for problem in inner.problems]
    return {"context": context, "rope_theta": theta, "rope_scaling": scaling}


def _settings(reader: ConfigReader) -> Mapping[str, Any]:
    """rope_scaling goes before rope_parameters where a file has both, as in transformers."""
    for key in ("rope_scaling", "rope_parameters"):
        settings = reader.mapping.get(key)
        if settings is None or settings == {}:
            continue
        if not isinstance(settings, Mapping):
            reader.problems.append(f"{key}: expected an object")
        elif any(isinstance(value, Mapping) for value in settings.values()):
            reader.problems.append(f"{key}: rotary positions that differ from layer to layer are not supported")
        else:
            return settings
    return {}
