"""`duihua ngram`: count n-grams, and let them write.

    duihua ngram --output runs/trigram --order 3 --sources.0.name wiki
    duihua ngram runs/trigram --generate "the city of" --samples 3

`--generate` makes the second form (`cli/two_forms.py`). The perplexity of any text is measured by `duihua evaluate perplexity`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from duihua import console
from duihua.cli.arguments import Parser
from duihua.cli.two_forms import train_or_ask
from duihua.errors import ConfigError


def main(argv: Sequence[str]) -> int:
    """Count or write; returns 0. Raises DuihuaError."""
    return train_or_ask(
        "ngram",
        argv,
        flags=("--generate",),
        ask=generate,
        bare="a model that is there can write",
        remedy="Add --generate [PROMPT]; to count text, write --output DIR",
        explained="To let a model write: duihua ngram MODEL --generate [PROMPT] (--generate --help explains it).\n"
        "To count text:",
    )


def generate(argv: Sequence[str]) -> int:
    """`duihua ngram MODEL --generate [PROMPT]`."""
    arguments = _parser().parse_args(argv)
    if arguments.tokens < 1 or arguments.samples < 1 or arguments.temperature < 0:
        raise ConfigError(
            "--tokens and --samples must be at least 1, --temperature at least 0",
            where="duihua ngram",
            remedy="Leave them out for 60, 3 and 1",
        )
    with console.json_output(arguments.json):
        from duihua.models.counts.ngram_bundle import load_ngram

        bundle = load_ngram(arguments.model)
        prompt = bundle.vocabulary.encode(arguments.generate)
        texts = [
            bundle.vocabulary.decode(
                prompt
                + bundle.model.generate(
                    prompt, tokens=arguments.tokens, temperature=arguments.temperature, seed=arguments.seed + number
                )
            )
            for number in range(arguments.samples)
        ]
        if arguments.json:
            console.emit_json(
                {
                    "model": arguments.model,
                    "order": bundle.model.order,
                    "prompt": arguments.generate,
                    "prompt_tokens": len(prompt),
                    "unknown_in_prompt": sum(id == bundle.vocabulary.unknown_id for id in prompt),
                    "texts": texts,
                }
            )
        for number, text in enumerate(texts):
            console.say(("\n" if number else "") + text)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="duihua ngram",
        description="Draw texts from an n-gram model, one token after the other, each from the last few before it.",
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL", help="folder that `duihua ngram --output` has written")
    parser.add_argument(
        "--generate",
        metavar="PROMPT",
        nargs="?",
        const="",
        required=True,
        help="how each text begins (default: nothing)",
    )
    parser.add_argument("--tokens", type=int, default=60, metavar="N", help="most tokens of a text (default 60)")
    parser.add_argument(
        "--samples", type=int, default=3, metavar="N", help="texts, each with a seed of its own (default 3)"
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        metavar="T",
        help="below 1 likelier tokens, 0 the likeliest (default 1)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the first text (default 0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    return parser
