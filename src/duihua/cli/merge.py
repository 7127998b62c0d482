"""`duihua merge BASE --adapter DIR --output OUT`: a LoRA adapter, ours or PEFT's, becomes part of a model's weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from duihua import console
from duihua.cli.arguments import Parser

DTYPES = ("float32", "bfloat16", "float16")


def main(argv: Sequence[str]) -> int:
    """Run the command; 0 when the bundle is written. Raises DuihuaError for an adapter that does not fit the base."""
    parser = Parser(
        prog="duihua merge",
        description="Merge a LoRA adapter in PEFT's format into the model that it was trained beside, and write the "
        "result as a bundle that needs no adapter. The stages do this by themselves; this is for adapters from elsewhere.",
    )
    parser.add_argument("base", metavar="BASE", help="a bundle, or a Hugging Face directory that duihua reads")
    parser.add_argument("--adapter", metavar="DIR", required=True, help="folder with adapter_config.json")
    parser.add_argument("--output", metavar="OUT", required=True, help="a new folder for the merged bundle")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the stored weights (default float32)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    arguments = parser.parse_args(list(argv))
    with console.json_output(arguments.json):
        found = merge(arguments.base, arguments.adapter, Path(arguments.output), arguments.dtype)
        if arguments.json:
            console.emit_json(found)
        else:
            console.say(f"{found['adapted_matrices']} matrices were changed; the bundle is in {found['bundle']}")
    return 0


def merge(base: str, adapter: str, output: Path, dtype: str = "float32") -> dict[str, Any]:
    """Write the merged bundle; gives what `--json` prints."""
    from duihua.models.adapters import load_adapter
    from duihua.models.bundle import ModelCard, load_bundle, merge_terms, save_bundle
    from duihua.models.interop.exporting import refuse_existing
    from duihua.nn.lora import adapters, merge_lora

    refuse_existing(output)
    bundle = load_bundle(base)
    found = load_adapter(bundle.policy, adapter)
    adapted = len(list(adapters(bundle.policy)))
    merge_lora(bundle.policy)
    card = ModelCard(
        title="Duihua chat model" if found.stage in ("sft", "ppo") else "Duihua model with a merged adapter",
        stage=found.stage or "merge",
        description="A base model with a low-rank adapter added to its weights.",
        terms=merge_terms(bundle.terms, found.terms),
        prompts=bundle.prompts,
    )
    save_bundle(output, bundle.policy, bundle.tokenizer, card, dtype)
    return {
        "bundle": str(output),
        "base": str(bundle.directory),
        "adapter": str(adapter),
        "adapted_matrices": adapted,
        "stage": card.stage,
        "dtype": dtype,
    }
