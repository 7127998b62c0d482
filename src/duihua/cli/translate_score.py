"""`duihua translate score`: BLEU and chrF of a model on a named test, or of a file of translations; never without a
signature."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from duihua import console
from duihua.cli.arguments import Parser
from duihua.cli.translate_search import add_search_flags, search_settings
from duihua.data.home import data_directory
from duihua.data.lines import stream_lines
from duihua.data.parallel.base import PARTS, facing, part_of, with_references
from duihua.data.records import Parallel
from duihua.data.source import KNOWN_SOURCES, SourceConfig, open_source
from duihua.errors import ConfigError, DataError
from duihua.files import write_atomic


def main(argv: Sequence[str]) -> int:
    """Score and print. Returns 0. Raises DuihuaError."""
    arguments = _parser().parse_intermixed_args(list(argv))
    files = bool(arguments.hypotheses or arguments.references)
    if bool(arguments.model) == files:
        raise ConfigError(
            "needs either a model and --test, or --hypotheses and --references",
            where="duihua translate score",
            remedy="Write duihua translate score DIR --test NAME, or --hypotheses FILE --references FILE --language L",
        )
    with console.json_output(arguments.json):
        outcome = _score_files(arguments) if files else _score_model(arguments)
        if arguments.json:
            console.emit_json(outcome)
        else:
            _show(outcome)
    return 0


def _score_files(arguments: argparse.Namespace) -> dict[str, Any]:
    from duihua.evaluation.translation_scores import score_translations

    if not (arguments.hypotheses and arguments.references and arguments.language):
        missing = [n for n in ("hypotheses", "references", "language") if not getattr(arguments, n)]
        raise ConfigError(
            f"needs {' and '.join(f'--{name}' for name in missing)} as well",
            where="duihua translate score",
            remedy="The language is the one that is written: it says how BLEU cuts words",
        )
    hypotheses = list(stream_lines(Path(arguments.hypotheses)))
    columns = [list(stream_lines(Path(file))) for file in arguments.references]
    sources = list(stream_lines(Path(arguments.sources))) if arguments.sources else None
    for name, lines in [*zip(arguments.references, columns, strict=True), (arguments.sources, sources)]:
        if lines is not None and len(lines) != len(hypotheses):
            raise DataError(
                f"{len(lines):,} lines, and {arguments.hypotheses} has {len(hypotheses):,}",
                where=name,
                remedy="Line n of each file must belong to the same sentence",
            )
    references = [list(known) for known in zip(*columns, strict=True)]
    scores = score_translations(hypotheses, references, arguments.language, sources)
    return {"hypotheses": arguments.hypotheses, "references": list(arguments.references)} | scores.to_dict()


def _score_model(arguments: argparse.Namespace) -> dict[str, Any]:
    from duihua.engine.translation_model import TranslationModel
    from duihua.evaluation.translation_scores import score_translations

    settings = search_settings(arguments)
    model = TranslationModel.load(arguments.model, arguments.device)
    direction = model.direction(arguments.from_language, arguments.to_language)
    source = open_source(_source(arguments, direction), data_directory(arguments.data))
    pairs = [facing(pair, *direction) for pair in part_of(source, arguments.part) if _is_pair(pair)]
    asked = with_references(pairs)[: arguments.limit or None]
    if not asked:
        raise DataError(f"has no {arguments.part} part", where=source.name, remedy="Choose another --test or --part")
    texts, references = [text for text, _ in asked], [known for _, known in asked]
    with console.progress(len(texts), "sentence", "score") as bar:
        answers = model.translate(texts, direction, settings, cut=True, advance=bar.advance)
    hypotheses = [answer[0].text for answer in answers]
    scores = score_translations(hypotheses, references, direction[1], texts)
    if arguments.output:
        write_atomic(Path(arguments.output), "".join(f"{line}\n" for line in hypotheses).encode("utf-8"))
    return {
        "model": arguments.model,
        "direction": "-".join(direction),
        "test": source.name,
        "part": arguments.part,
        "search": asdict(settings),
        "cut": sum(answer[0].cut_tokens > 0 for answer in answers),
    } | scores.to_dict()


def _is_pair(record: object) -> bool:
    return isinstance(record, Parallel)


def _source(arguments: argparse.Namespace, direction: tuple[str, str]) -> SourceConfig:
    """The test that is named: a known source, or a file of the user's with the columns named after the languages."""
    if not arguments.test:
        raise ConfigError(
            "no test is named",
            where="--test",
            remedy="Name a source of parallel texts, such as multi30k-fr-en, or a file",
        )
    if arguments.test in KNOWN_SOURCES:
        return SourceConfig(name=arguments.test)
    return SourceConfig(path=arguments.test, kind="parallel", languages="-".join(direction))


def _show(outcome: dict[str, Any]) -> None:
    console.say(f"{outcome['sentences']:,} sentences")
    for name in ("bleu", "chrf"):
        low, high = (outcome[f"{name}_interval"][end] for end in ("low", "high"))
        console.say(f"{name}  {outcome[name]['value']:.2f} [{low:.2f}, {high:.2f}]  {outcome[name]['signature']}")
    lengths = outcome["by_length"]
    console.table(
        f"BLEU by the {lengths['measured']}'s length ({outcome['bleu']['signature']})",
        [lengths["unit"], "sentences", "BLEU"],
        [[each["length"], each["sentences"], each["bleu"]["value"]] for each in lengths["buckets"]],
    )


def _parser() -> Parser:
    parser = Parser(
        prog="duihua translate score",
        description="BLEU and chrF with their signatures, and BLEU by length: of a model on a test, or of a file of "
        "translations.",
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL", nargs="?", default="", help="folder of a translator")
    parser.add_argument("--test", default="", metavar="NAME", help="known source of parallel texts, or your own table")
    parser.add_argument("--part", choices=PARTS, default="test", help="which part of it (default test)")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="the first N sentences (default all)")
    parser.add_argument("--output", default="", metavar="FILE", help="write the translations there")
    parser.add_argument("--hypotheses", default="", metavar="FILE", help="translations, one a line")
    parser.add_argument(
        "--references", nargs="+", default=[], metavar="FILE", help="right ones; several files: several each"
    )
    parser.add_argument("--sources", default="", metavar="FILE", help="what was translated, for its lengths")
    parser.add_argument("--language", default="", metavar="L", help="that the hypotheses are in: en, zh, fr ...")
    parser.add_argument("--from", dest="from_language", default="", metavar="L", help="language that is read")
    parser.add_argument("--to", dest="to_language", default="", metavar="L", help="language that is written")
    add_search_flags(parser, n_best=False)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default cpu)")
    parser.add_argument(
        "--data", default="", metavar="DIR", help="data directory (default $DUIHUA_HOME or ~/.cache/duihua)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    return parser
