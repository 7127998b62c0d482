"""The files around tokenizer.json: tokenizer_config.json, the chat template, and the ids at which a model stops.

Every reader of tokenizers has its own habits about where these stand; here each is looked for in the places that
transformers writes, newest first, and a file that is missing says nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers

from duihua.errors import BundleError, DuihuaError
from duihua.files import read_json
from duihua.text.chatml import IM_END, IM_START, PAD


def read_stop_ids(directory: Path) -> tuple[int, ...]:
    """Ids that generation_config.json, or where it is silent config.json, lists under eos_token_id."""
    for name in ("generation_config.json", "config.json"):
        listed = read_optional(Path(directory) / name).get("eos_token_id")
        if isinstance(listed, int):
            return (listed,)
        if isinstance(listed, list):
            return tuple(id for id in listed if isinstance(id, int))
    return ()


def read_chat_template(directory: Path, config: dict[str, Any]) -> str | None:
    """The jinja source of chat_template.jinja, or of the one inside tokenizer_config.json; None where there is neither."""
    file = directory / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):  # several named ones
        template = {entry.get("name"): entry.get("template") for entry in template}.get("default")
    return template if isinstance(template, str) else None


def read_optional(path: Path) -> dict[str, Any]:
    """The JSON object of a file; empty where there is none. Raises BundleError for a file that is broken."""
    if not path.is_file():
        return {}
    try:
        found = read_json(path)
    except DuihuaError as error:
        raise BundleError(error.problem, where=error.where, remedy=error.remedy) from error
    if not isinstance(found, dict):
        raise BundleError("expected a JSON object", where=str(path), remedy="Fetch the file again")
    return found


def own_config() -> dict[str, Any]:
    """tokenizer_config.json of a tokenizer of ours. The class is the generic one on purpose: under `Qwen2Tokenizer`
    transformers 5 puts its own normaliser (NFC) and pattern in place of the file's."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": IM_END,
        "pad_token": PAD,
        "unk_token": None,
        "additional_special_tokens": [IM_START],
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "padding_side": "right",
    }


def is_byte_level(backend: tokenizers.Tokenizer) -> bool:
    """Whether tokens are runs of bytes, as its decoder says."""
    decoder = json.loads(backend.decoder.__getstate__()) if backend.decoder else {}  # without the long vocabulary
    return any(part.get("type") == "ByteLevel" for part in [decoder, *decoder.get("decoders", [])])
