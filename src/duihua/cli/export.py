"""`duihua export BUNDLE --to huggingface|gguf --output OUT`: a model for other programs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from duihua import console
from duihua.cli.arguments import Parser
from duihua.errors import ConfigError

DTYPES = {"huggingface": ("f32", "f16", "bf16"), "gguf": ("f32", "f16", "bf16", "q8_0")}


def main(argv: Sequence[str]) -> int:
    """Run the command; 0 when it is written. Raises DuihuaError for a model that the form cannot hold."""
    arguments = _parser().parse_args(list(argv))
    if arguments.dtype and arguments.dtype not in DTYPES[arguments.to]:
        raise ConfigError(
            f"{arguments.to} has no {arguments.dtype}",
            where="--dtype",
            remedy=f"Use one of {', '.join(DTYPES[arguments.to])}",
        )
    with console.json_output(arguments.json):
        found = _to_gguf(arguments) if arguments.to == "gguf" else _to_directory(arguments)
        if arguments.json:
            console.emit_json(found)
        else:
            _show(found)
    return 0


def _to_gguf(arguments: argparse.Namespace) -> dict[str, Any]:
    output = Path(arguments.output)
    if output.suffix != ".gguf":
        raise ConfigError(
            f"a GGUF file ends in .gguf, found {output.name}", where="--output", remedy=f"Write {output}.gguf"
        )
    for flag in ("shard_megabytes", "clean"):
        if getattr(arguments, flag):
            raise ConfigError("belongs to --to huggingface", where=f"--{flag.replace('_', '-')}", remedy="Leave it out")
    from duihua.models.bundle import load_bundle
    from duihua.models.interop.exporting import refuse_existing
    from duihua.models.interop.gguf import export_gguf

    refuse_existing(output)
    written = export_gguf(load_bundle(arguments.bundle), output, arguments.dtype or "f16", arguments.name)
    return {"to": "gguf", **asdict(written), "file": str(written.file)}


def _to_directory(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.shard_megabytes < 0:
        raise ConfigError(
            f"must be at least 1, found {arguments.shard_megabytes}",
            where="--shard-megabytes",
            remedy="Leave it out for the usual size",
        )
    from duihua.models.bundle import load_bundle
    from duihua.models.interop.exporting import export_directory, refuse_existing

    refuse_existing(Path(arguments.output))
    written = export_directory(
        load_bundle(arguments.bundle),
        Path(arguments.output),
        arguments.dtype,
        shard_bytes=arguments.shard_megabytes << 20,
        clean=arguments.clean,
    )
    return {"to": "huggingface", **asdict(written), "directory": str(written.directory)}


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="duihua export",
        description="Write a model for other programs: a Hugging Face directory, or one GGUF file for llama.cpp.",
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="a bundle, or a Hugging Face directory that duihua reads")
    parser.add_argument("--to", choices=list(DTYPES), required=True, help="the form")
    parser.add_argument("--output", metavar="OUT", required=True, help="a new directory, or a new file NAME.gguf")
    parser.add_argument(
        "--dtype",
        choices=sorted({dtype for dtypes in DTYPES.values() for dtype in dtypes}),
        default="",
        help="number format of the matrices (default: as stored; f16 for gguf; q8_0: gguf only)",
    )
    parser.add_argument(
        "--shard-megabytes", type=int, default=0, metavar="MB", help="huggingface: most MiB of one weight file"
    )
    parser.add_argument(
        "--clean", action="store_true", help="huggingface: leave duihua's own key out of config.json (its terms too)"
    )
    parser.add_argument("--name", metavar="NAME", default="", help="gguf: name inside the file (default: OUT's)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _show(found: dict[str, Any]) -> None:
    size = f"{found['bytes'] / 2**20:,.1f} MiB"
    if found["to"] == "gguf":
        forms = ", ".join(f"{count} tensors in {name}" for name, count in found["forms"].items())
        console.say(f"{found['file']}: {found['parameters']:,} parameters, {size}; {forms}.")
        for note in found["notes"]:
            console.say(f"Note: {note}.")
    else:
        files = "1 weight file" if found["files"] == 1 else f"{found['files']} weight files"
        console.say(f"{found['directory']}: {found['parameters']:,} parameters, {found['dtype']}, {size}, {files}.")
