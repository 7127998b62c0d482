"""`duihua inspect` of a translator, or of the published encoder-decoder: shapes module by module, and parameters.

Why apart from the decoder's: an encoder-decoder has two lengths and two stacks, and what the other view says of contexts,
caches and training on tokens has no meaning here.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from duihua import console
from duihua.errors import ConfigError

PRESET = "transformer-base"
PUBLISHED_VOCABULARY = 37_000
DEFAULT_TOKENS = 32


def is_meant(name: str) -> bool:
    """Whether `name` is a translator's folder or the preset."""
    if name == PRESET:
        return True
    if not (Path(name) / "config.json").is_file():
        return False
    from duihua.models.translation_bundle import is_translator

    return is_translator(name)


def inspect_translator(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `--json` prints. Raises ConfigError for what a translator has not."""
    import torch

    from duihua.models.transformer import Transformer
    from duihua.models.transformer_config import TransformerConfig
    from duihua.models.translation_bundle import TranslatorNetwork, load_translator
    from duihua.models.translator_shapes import module_shapes

    if arguments.tokens is not None:
        raise ConfigError("is for language models", where="--tokens", remedy="Leave it out for a translator")
    network: TranslatorNetwork
    if arguments.model == PRESET:
        config = TransformerConfig(vocabulary_size=arguments.vocabulary_size or PUBLISHED_VOCABULARY)
        with torch.device("meta"):
            network = Transformer(config)
        network = network.to("meta").eval()
        about: dict[str, Any] = {
            "preset": PRESET,
            "about": "The base model of Vaswani et al. 2017, table 3; without biases in the attention, as its formulas are.",
        }
    else:
        if arguments.vocabulary_size is not None:
            raise ConfigError("a bundle has its own vocabulary", where="--vocabulary-size", remedy="Leave it out")
        bundle = load_translator(arguments.model)
        network = bundle.network
        about = {"directory": str(bundle.directory), "languages": list(bundle.languages), "terms": bundle.terms}
    tokens = min(DEFAULT_TOKENS, network.config.most_tokens) if arguments.time is None else arguments.time
    if arguments.batch < 1:
        raise ConfigError(
            f"must be at least 1, found {arguments.batch}",
            where="--batch",
            remedy="Set it to 1 or more, or leave it out",
        )
    if not 1 <= tokens <= network.config.most_tokens:
        raise ConfigError(
            f"must be within the model's {network.config.most_tokens}, found {tokens}",
            where="--time",
            remedy="Choose fewer tokens, or leave it out",
        )
    lines = module_shapes(network, arguments.batch, tokens)
    return {
        **about,
        "kind": "translator",
        "config": asdict(network.config),
        "parameters": {"total": sum(line.parameters * line.copies for line in lines)},
        "shapes": {"batch": arguments.batch, "source": tokens, "target": tokens, "layers": [asdict(x) for x in lines]},
    }


def show(found: dict[str, Any]) -> None:
    """The same for people."""
    name = found.get("directory") or found["preset"]
    languages = f", {' to '.join(found['languages'])}" if "languages" in found else ""
    console.say(f"{name}: translator{languages}. {found.get('about', '')}".rstrip())
    shapes = found["shapes"]
    rows: list[tuple[Any, ...]] = [
        (_name(line), line["kind"], _shape(line["input"]), _shape(line["output"]), line["parameters"] or None)
        for line in shapes["layers"]
    ]
    rows.append(("total, with all copies", "", "", "", found["parameters"]["total"]))
    console.say()
    console.table(
        f"One forward pass of {shapes['batch']} pairs of {shapes['source']} tokens on each side; parameters of each module "
        "itself",
        ("module", "kind", "input", "output", "parameters"),
        rows,
    )
    console.say()
    console.table("", ("setting", "value"), [(key, str(value)) for key, value in found["config"].items()])
    if found.get("terms"):
        console.say()
        console.table("Data", ("source", "licence"), [(t["name"], t.get("licence", "")) for t in found["terms"]])


def _name(line: dict[str, Any]) -> str:
    """The last part of the path, set in by its depth; a block with its stack's name and its copies."""
    if not line["name"]:
        return str(line["kind"])
    parts = line["name"].split(".")
    is_block = len(parts) == 2 and parts[0] in ("encoder", "decoder") and parts[1].isdigit()
    in_block = len(parts) > 2 and parts[1].isdigit()
    own: str = line["name"] if is_block else parts[-1]
    alike = f" (x{line['copies']} alike)" if is_block and line["copies"] > 1 else ""
    return "  " * (1 if is_block else len(parts) - in_block) + own + alike + (" (tied)" if line["tied"] else "")


def _shape(shape: Any) -> str:
    return "" if shape is None else " x ".join(map(str, shape))
