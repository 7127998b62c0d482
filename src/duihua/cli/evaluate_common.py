"""What the measurements of `duihua evaluate` share: flags, texts to read, how results are shown and kept."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duihua import console
from duihua.cli.arguments import Parser
from duihua.errors import ConfigError, DataError

if TYPE_CHECKING:
    from duihua.data.records import Document
    from duihua.data.source import Source
    from duihua.evaluation.intervals import Interval
    from duihua.evaluation.language_model import LanguageModel


def result_flags() -> argparse.ArgumentParser:
    """Flags of every measurement."""
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--output", metavar="FILE", default="", help="also write the result to this file, as JSON")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="seed of the resampling (default 0)")
    parser.add_argument("--rounds", metavar="N", type=int, default=1000, help="resamples of an interval (default 1000)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    return parser


def data_flags() -> argparse.ArgumentParser:
    """Where archives lie, and on what to compute."""
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument(
        "--data", metavar="DIR", default="", help="data directory (default $DUIHUA_HOME or ~/.cache/duihua)"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default cpu)")
    parser.add_argument("--threads", metavar="N", type=int, default=None, help="CPU threads (default: torch's choice)")
    return parser


def text_flags() -> argparse.ArgumentParser:
    """Which texts are read."""
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument(
        "--text",
        metavar="FILE",
        nargs="+",
        default=[],
        help="files, folders or globs of your own: all of their text (txt, md, jsonl, json, csv, tsv, parquet)",
    )
    parser.add_argument(
        "--source",
        metavar="NAME",
        action="append",
        default=[],
        help="held-out part of a known source (`duihua data list`); may be given several times",
    )
    parser.add_argument(
        "--bytes",
        metavar="N",
        type=int,
        default=0,
        help="about so many bytes of each language, in whole documents drawn by hash (default: all)",
    )
    parser.add_argument(
        "--whole",
        action="store_true",
        help="every txt or md file of --text is one document (else cut near 8,192 characters)",
    )
    parser.add_argument(
        "--lines",
        action="store_true",
        help="every line of --text is a sentence whose end is predicted too, a file is one stream (the Penn Treebank's way)",
    )
    return parser


def window_flags() -> argparse.ArgumentParser:
    """How much a decoder sees."""
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument(
        "--context", metavar="N", type=int, default=None, help="tokens of a window (default: the model's context)"
    )
    parser.add_argument(
        "--stride",
        metavar="N",
        type=int,
        default=None,
        help="a window begins every N tokens; each token is scored once, with at least context - N + 1 before it where there "
        "are so many (default: the context, so that windows do not overlap)",
    )
    return parser


def check(arguments: argparse.Namespace) -> None:
    """Refuse impossible numbers before anything slow."""
    if arguments.rounds < 100:
        raise ConfigError(
            f"must be at least 100, found {arguments.rounds}",
            where="--rounds",
            remedy="Fewer resamples make no interval; 1000 are usual",
        )
    if getattr(arguments, "bytes", 0) < 0:
        raise ConfigError(
            f"cannot be negative, found {arguments.bytes}", where="--bytes", remedy="0 reads all of the text"
        )
    if arguments.output and Path(arguments.output).is_dir():
        raise ConfigError(
            "is a folder", where=f"--output {arguments.output}", remedy="Name a file, such as result.json"
        )


def finish(arguments: argparse.Namespace, outcome: dict[str, Any], show: Callable[[], None]) -> int:
    """Keep the result where asked, then print it: as JSON, or by `show`. Returns 0."""
    if arguments.output:
        from duihua.files import write_json

        write_json(Path(arguments.output), outcome)
    if console.json_mode():
        console.emit_json(outcome)
    else:
        show()
        if arguments.output:
            console.say(f"The result is in {arguments.output}")
    return 0


def open_models(directories: Sequence[str], arguments: argparse.Namespace) -> list[LanguageModel]:
    """The models, after torch was told how many threads it has."""
    for directory in directories:
        if not Path(directory).is_dir():
            raise ConfigError("no such folder", where=directory, remedy="Name the folder of a model")
    if arguments.threads is not None and arguments.threads < 1:
        raise ConfigError(
            f"must be at least 1, found {arguments.threads}",
            where="--threads",
            remedy="Leave --threads out for all cores",
        )

    from duihua.interrupts import signals_wait

    with signals_wait():
        import torch

        from duihua.evaluation.language_model import open_language_model
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    return [open_language_model(directory, arguments.device) for directory in directories]


def documents(arguments: argparse.Namespace) -> tuple[list[Document], dict[str, Any]]:
    """The documents of --text and --source, and what was left out of them. Raises ConfigError where none are named."""
    from duihua.data.home import data_directory
    from duihua.data.records import Document, LeftOut
    from duihua.data.source import SourceConfig, open_source

    if not arguments.text and not arguments.source:
        raise ConfigError("no text to score", where="evaluate", remedy="Add --text FILE or --source NAME")
    if arguments.lines and (arguments.source or arguments.bytes):
        raise ConfigError(
            "reads lines of your own files alone", where="--lines", remedy="Leave --source and --bytes out"
        )
    left_out, found = LeftOut(), []
    for path in arguments.text:
        whole = _whole_files(path) if arguments.whole or arguments.lines else None
        if whole is not None:
            found += whole
            continue
        if arguments.lines:
            raise ConfigError("reads plain text files", where=f"--lines {path}", remedy="Name txt or md files")
        source = own_records(path, "text")
        found += [record for record in source.records("heldout") if isinstance(record, Document)]
        _add(left_out, source)
    for name in arguments.source:
        source = open_source(SourceConfig(name=name), data_directory(arguments.data))
        if source.kind != "text":
            raise ConfigError(
                f"this reads text, and the source holds {source.kind}",
                where=f"--source {name}",
                remedy="Name a source of text; conversations go to `duihua evaluate accuracy MODEL --conversations NAME`",
            )
        found += [record for record in source.records("heldout") if isinstance(record, Document)]
        _add(left_out, source)
    if arguments.bytes:
        from duihua.stages.evaluate import choose_documents

        found = choose_documents(found, arguments.bytes)
    return found, left_out.to_mapping()


def own_records(path: str, kind: Any) -> Source:
    """All records of the user's files, none of them kept for training."""
    from duihua.data.source import SourceConfig
    from duihua.data.user_files import UserFiles

    return UserFiles(SourceConfig(path=path, kind=kind), 1.0)


def _whole_files(path: str) -> list[Document] | None:
    """Each plain text file as one document; None where `path` names files of another form."""
    from duihua.data.lines import read_text
    from duihua.data.records import Document, detect_language
    from duihua.data.rows import TEXT_SUFFIXES, form_of
    from duihua.data.user_files import find_files

    files, _ = find_files(path)
    if not all(form_of(file) in TEXT_SUFFIXES for file in files):
        return None
    texts = [(read_text(str(file)), str(file)) for file in files]
    return [Document(text, name, detect_language(text)) for text, name in texts]


def _add(left_out: Any, source: Source) -> None:
    for reason, entry in source.left_out.to_mapping()["reasons"].items():
        left_out.add(reason, entry["first"], entry["count"])


def say_left_out(left_out: dict[str, Any]) -> None:
    """One line a reason."""
    for reason, entry in left_out["reasons"].items():
        console.say(f"left out: {entry['count']:,} x {reason} (first at {entry['first']})")


def shown(interval: Interval | None, scale: float = 1.0, digits: int = 2) -> str:
    """`41.50 [38.20, 44.90]`: a value with its 95 % interval."""
    if interval is None:
        return "-"
    value, low, high = (f"{number * scale:,.{digits}f}" for number in (interval.value, interval.low, interval.high))
    if interval.n == 1 and interval.low == interval.high:  # one document has no spread to draw from
        return f"{value} [one item]"
    return f"{value} [{low}, {high}]"


def read_pairs(hypotheses: str, references: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Lines of a hypothesis file, and for each its references out of all reference files."""
    from duihua.data.lines import read_lines

    if [hypotheses, *references].count("-") > 1:
        raise ConfigError("standard input can be read once", where="-", remedy="Name a file for the others")
    said = read_lines(hypotheses)
    known = [read_lines(path) for path in references]
    for path, lines in zip(references, known, strict=True):
        if len(lines) != len(said):
            raise DataError(
                f"{len(lines):,} lines, and {hypotheses} has {len(said):,}: line i must belong to line i",
                where=path,
                remedy="Give the references of these hypotheses",
            )
    if not said:
        raise DataError("has no lines", where=hypotheses, remedy="Give a file with one text a line")
    return said, [list(each) for each in zip(*known, strict=True)]
