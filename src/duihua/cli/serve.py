"""`duihua serve BUNDLE...`: the chat page and the OpenAI-compatible API of one or several models."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from duihua.config.flags import parse
from duihua.console import emit_json, json_output, say
from duihua.errors import ConfigError
from duihua.serving.config import ServingConfig, is_loopback

DESCRIPTION = (
    "Serve the chat page and an OpenAI-compatible API. BUNDLES are model folders; the folder of a run stands for its "
    "models base, sft and ppo, the last being the default, and for its classifiers and translators. Ctrl-C stops it."
)


@dataclass(frozen=True)
class Arguments(ServingConfig):
    """What `duihua serve` takes."""

    bundles: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="BUNDLE ...")] = ()
    """Model folders, or folders of runs."""
    json: bool = False
    """Print one JSON object with address and models when all is ready, and nothing else, on standard output."""


def main(argv: Sequence[str]) -> int:
    """Serve until stopped. Returns 0."""
    arguments = parse(Arguments, argv, prog="duihua serve", description=DESCRIPTION)
    if not arguments.bundles:
        raise ConfigError("which model", where="duihua serve", remedy="Give a folder: duihua serve runs/quickstart")
    with json_output(arguments.json):
        _serve(arguments)
    return 0


def _serve(arguments: Arguments) -> None:
    from duihua.report.inside.page import served_page, served_translator_page
    from duihua.serving.models import Models
    from duihua.serving.page_files import PAGE_DIRECTORY
    from duihua.serving.server import serve

    def listening(address: str) -> None:
        say(f"Loading the model; {address} answers already.")

    def ready(address: str, models: Models) -> None:
        cards = [model.card for model in models.all()]
        built = (PAGE_DIRECTORY / "index.html").is_file()
        classifiers = [found.card for found in models.classifiers()]
        translators = [found.card for found in models.translators()]
        names = [*(c.name for c in cards), *(c.name for c in classifiers), *(c.name for c in translators)]
        say(f"Serving {', '.join(names)}.")
        say(f"  Chat page   {address}" + ("" if built else "   (not built yet: python tools/build_page.py)"))
        say(f"  OpenAI API  {address}/v1" + ("   (with your key)" if arguments.api_key else ""))
        for card in classifiers:
            say(f"  Classifier  {card.name} ({card.task}), POST {address}/v1/classifications")
        for translator in translators:
            ways = " and ".join(" to ".join(each) for each in translator.directions)
            say(f"  Translator  {translator.name} ({ways}), POST {address}/v1/translations")
        say(f"  History     {arguments.store_place}")
        if not is_loopback(arguments.host):
            say("  Others in your network can reach it; the key is sent unencrypted unless a proxy adds https.")
        say("Ctrl-C stops it.")
        if arguments.json:
            default = models.default
            emit_json(
                {
                    "address": address,
                    "api": f"{address}/v1",
                    "models": [card.name for card in cards],
                    "classifiers": [card.name for card in classifiers],
                    "translators": [card.name for card in translators],
                    "default_model": default.card.name if default else None,
                    "store": arguments.store_place,
                    "page_built": built,
                }
            )
            sys.stdout.flush()

    serve(
        arguments.bundles,
        arguments,
        listening=listening,
        ready=ready,
        inside=served_page,
        inside_translator=served_translator_page,
    )
    say("Stopped.")
