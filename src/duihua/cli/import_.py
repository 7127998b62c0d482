"""`duihua import DIR --output OUT`: check a Hugging Face directory and write it as a bundle."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from duihua import console
from duihua.cli.arguments import Parser
from duihua.errors import ConfigError

if TYPE_CHECKING:
    from duihua.models.interop.importing import FoundModel

SHOWN = 6  # names of a long list that are printed


def main(argv: Sequence[str]) -> int:
    """Run the command; 0 when everything in the directory is right. Raises DuihuaError where something is not."""
    arguments = _parser().parse_args(list(argv))
    if arguments.check == bool(arguments.output):
        raise ConfigError(
            "give either --output DIR or --check",
            where="duihua import",
            remedy="Write --output DIR to import the model, or --check to look at it alone",
        )
    with console.json_output(arguments.json):
        from duihua.models.interop.importing import check_directory, import_directory

        source = Path(arguments.directory)
        if arguments.check:
            _, found = check_directory(source, arguments.chat_template)
        else:
            found = import_directory(source, Path(arguments.output), arguments.chat_template, arguments.name)
        if arguments.json:
            console.emit_json(found.to_mapping() | {"output": arguments.output})
        else:
            _show(found)
            if arguments.output:
                console.say()
                console.say(f"Written to {arguments.output}. Try: duihua chat {arguments.output}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="duihua import",
        description="Check a Hugging Face model directory (GPT-1, GPT-2, Llama, Qwen3) and write it as a bundle.",
    )
    parser.add_argument("directory", metavar="DIR", help="a directory with config.json and safetensors files")
    parser.add_argument("--output", metavar="OUT", help="the bundle to write; must not exist")
    parser.add_argument("--check", action="store_true", help="only say what is there, write nothing")
    parser.add_argument(
        "--chat-template",
        metavar="WHICH",
        default="",
        help="a jinja file, chatml, or none (default: the directory's own, and ChatML where it has none)",
    )
    parser.add_argument("--name", metavar="NAME", default="", help="of the model in the card (default: DIR's)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _show(found: FoundModel) -> None:
    left_out = found.left_out
    names = ", ".join(left_out[:SHOWN]) + (f" and {len(left_out) - SHOWN} more" if len(left_out) > SHOWN else "")
    rows = [
        ("family", f"{found.family} ({found.architecture})"),
        ("parameters", f"{found.parameters:,}"),
        ("context", f"{found.context:,} tokens"),
        ("embedding", f"{found.vocabulary_rows:,} rows"),
        ("weights", f"{found.dtype}, {found.weight_files} file{'s' if found.weight_files != 1 else ''}"),
        ("left out", names or "nothing"),
        ("tokenizer", found.tokenizer),
        ("chat template", found.chat_template),
        ("licence", found.licence or "not stated"),
        *(("note", note) for note in found.notes),
    ]
    console.table(found.directory, ("", "found"), rows)
