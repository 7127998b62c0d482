"""`duihua inspect BUNDLE`: what a model consists of, what it takes in memory, how it stops, whose data it is made from."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from duihua import console


def main(argv: Sequence[str]) -> int:
    """Print the parameter table of a bundle; 0 when it could be read. Raises BundleError where it cannot."""
    parser = argparse.ArgumentParser(
        prog="duihua inspect", description="Show the parameters, memory, tokenizer and data terms of a model directory."
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="a bundle of duihua or a Qwen3 model directory")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(argv)
    with console.json_output(arguments.json):
        found = inspect_bundle(arguments.bundle)
        if arguments.json:
            console.emit_json(found)
        else:
            _show(found)
    return 0


def inspect_bundle(directory: str) -> dict[str, Any]:
    """What `--json` prints."""
    from duihua.errors import BundleError
    from duihua.files import directory_size
    from duihua.models.bundle import load_bundle
    from duihua.models.inspect import inspect_network

    bundle = load_bundle(directory)
    try:
        tokenizer: dict[str, Any] | None = {
            "vocabulary_size": bundle.tokenizer.vocabulary_size,
            "control_tokens": bundle.tokenizer.special_tokens,
            "has_chat_template": bundle.tokenizer.chat_template is not None,
            "fingerprint": bundle.tokenizer.fingerprint,
        }
    except BundleError:
        tokenizer = None
    inspection = inspect_network(bundle.network, bundle.config).to_mapping()
    return {
        "directory": str(bundle.directory),
        "kind": bundle.kind,
        "disk_bytes": directory_size(bundle.directory),
        "config": asdict(bundle.config),
        "parameters": {"total": inspection["total"], "groups": inspection["groups"]},
        "memory_bytes": inspection["memory"],
        "tokenizer": tokenizer,
        "stop_ids": list(bundle.stop_ids),
        "normalisation": asdict(bundle.normalisation) if bundle.normalisation else None,
        "terms": bundle.terms,
    }


def _show(found: dict[str, Any]) -> None:
    parameters = found["parameters"]
    rows: list[tuple[Any, ...]] = [
        (g["name"], " x ".join(map(str, g["shape"])), g["copies"], g["parameters"], f"{g['share']:.1%}")
        for g in parameters["groups"]
    ]
    rows.append(("total", "", None, parameters["total"], "100.0%"))
    console.table(
        f"{found['directory']}: {found['kind']}", ("parameter", "shape", "copies", "parameters", "share"), rows
    )
    if found["config"]["tied_embeddings"]:
        console.say("The head uses the embedding's matrix, which is counted once.")
    console.say()
    console.table(
        "", ("memory", "size"), [(n.replace("_", " "), _bytes(size)) for n, size in found["memory_bytes"].items()]
    )
    console.say()
    console.table("", ("setting", "value"), [(name, str(value)) for name, value in found["config"].items()])
    console.say()
    if found["tokenizer"] is None:
        console.say("No tokenizer in this directory.")
    else:
        names = {id: name for name, id in found["tokenizer"]["control_tokens"].items()}
        stops = ", ".join(f"{id} {names.get(id, '')}".strip() for id in found["stop_ids"])
        console.say(f"Tokenizer: {found['tokenizer']['vocabulary_size']:,} ids; a reply ends at {stops or 'nothing'}.")
    if found["normalisation"]:
        scores = found["normalisation"]
        console.say(f"Scores: mean {scores['mean']:.4g}, standard deviation {scores['standard_deviation']:.4g}.")
    if found["terms"]:
        console.say()
        console.table(
            "Data", ("source", "licence"), [(terms["name"], terms.get("licence", "")) for terms in found["terms"]]
        )


def _bytes(size: int) -> str:
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} B"
