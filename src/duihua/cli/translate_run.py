"""`duihua translate run`: a file, standard input or a terminal in; a translation a line out, in order, as soon as it is made.

An empty line has an empty translation, so that line n of the output always belongs to line n of the input. A line of too many
tokens stops the command and says which one, unless `--cut` allows what does not fit to be left out.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from duihua import console
from duihua.cli.arguments import Parser
from duihua.cli.translate_search import add_search_flags, search_settings
from duihua.data.lines import stream_lines
from duihua.errors import DataError, GenerationError

if TYPE_CHECKING:
    from duihua.engine.beam_settings import BeamSettings
    from duihua.engine.translation_model import Translation, TranslationModel

CHUNK = 64
"""Lines that are translated together; of a pipe that gives them slowly, as many as are there."""
Line = tuple[str, str]
"""A line and its place."""


def main(argv: Sequence[str]) -> int:
    """Translate until the input ends. Returns 0. Raises DataError for a line that cannot be translated."""
    arguments = _parser().parse_intermixed_args(list(argv))
    settings = search_settings(arguments)
    with console.json_output(arguments.json):
        from duihua.engine.translation_model import TranslationModel

        model = TranslationModel.load(arguments.model, arguments.device)
        direction = model.direction(arguments.from_language, arguments.to_language)
        asking = arguments.file == "-" and sys.stdin.isatty() and not arguments.json
        if asking:
            console.say(f"{direction[0]} to {direction[1]}: a sentence a line; Ctrl-D ends.")
        lines = _file_lines(Path(arguments.file)) if arguments.file != "-" else _stream_lines(sys.stdin, asking)
        collected: list[dict[str, Any]] = []
        number = cut = 0
        for chunk in lines:
            answers = _translate(model, chunk, direction, settings, arguments.cut)
            for (text, _), found in zip(chunk, answers, strict=True):
                number += 1
                cut += found[0].cut_tokens > 0
                if arguments.json:
                    collected.append({"source": text, "translations": [asdict(each) for each in found]})
                else:
                    _print(number, found, arguments.n_best)
            sys.stdout.flush()
        if cut:
            most = model.network.config.most_tokens
            console.warn(f"cut to {most} tokens at their end: {cut:,} of {number:,} lines were longer")
        if arguments.json:
            outcome = {"model": arguments.model, "from": direction[0], "to": direction[1]}
            console.emit_json(outcome | {"search": asdict(settings), "translations": collected})
    return 0


def _print(number: int, found: Sequence[Translation], n_best: int) -> None:
    if n_best == 1:
        print(found[0].text, flush=False)
        return
    for rank, each in enumerate(found, start=1):
        print(f"{number}\t{rank}\t{each.score:.4f}\t{each.text}", flush=False)


def _translate(
    model: TranslationModel,
    chunk: Sequence[Line],
    direction: tuple[str, str],
    settings: BeamSettings,
    cut: bool,
) -> list[list[Translation]]:
    """Answers of a chunk. Raises DataError naming the line that is too long."""
    try:
        return model.translate([text for text, _ in chunk], direction, settings, cut)
    except GenerationError:
        for text, place in chunk:  # which one it was
            try:
                model.encode([text], direction)
            except GenerationError as error:
                remedy = f"{error.remedy or 'Shorten it'}, or add --cut to leave out what does not fit"
                raise DataError(error.problem, where=place, remedy=remedy) from error
        raise


def _file_lines(path: Path) -> Iterator[list[Line]]:
    """The lines of a file in chunks. Raises DataError for one that cannot be read."""
    chunk: list[Line] = []
    for number, line in enumerate(stream_lines(path), start=1):
        chunk.append((line, f"{path}:{number}"))
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _stream_lines(stream: TextIO, asking: bool) -> Iterator[list[Line]]:
    """The lines of standard input in chunks: whatever is there, so that a slow pipe or a person is answered at once. Raises
    DataError where it cannot be read on, after what came before has been given."""
    waiting: queue.Queue[str | Exception | None] = queue.Queue(maxsize=4 * CHUNK)

    def read() -> None:
        try:
            for line in stream:
                waiting.put(line)
        except Exception as error:  # whatever it was: it is raised where it is waited for, or the wait would never end
            waiting.put(error)
        waiting.put(None)

    threading.Thread(target=read, name="duihua-read", daemon=True).start()
    number = 0
    found: str | Exception | None = ""
    while isinstance(found, str):
        if asking:
            print("> ", end="", file=sys.stderr, flush=True)
        chunk: list[Line] = []
        found = waiting.get()
        while isinstance(found, str):
            number += 1
            chunk.append((found.rstrip("\r\n"), f"standard input:{number}"))
            if len(chunk) == CHUNK:
                break
            try:
                found = waiting.get_nowait()
            except queue.Empty:
                break
        if chunk:
            yield chunk
    if isinstance(found, UnicodeDecodeError):
        where = f"standard input:{number + 1}"
        raise DataError("bytes that are not UTF-8", where=where, remedy="Give the text as UTF-8") from found
    if isinstance(found, OSError):
        problem = f"cannot be read: {found.strerror or found}"
        remedy = "Give the text as a file, or run it again"
        raise DataError(problem, where=f"standard input:{number + 1}", remedy=remedy) from found
    if found is not None:
        raise found


def _parser() -> Parser:
    parser = Parser(
        prog="duihua translate run",
        description="Translate a sentence a line: of a file, of standard input, or typed at a terminal. With --n-best, each "
        "line of the output is number, rank, score and text, with tabs between.",
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL", help="folder that `duihua translate train` has written")
    parser.add_argument(
        "file", metavar="FILE", nargs="?", default="-", help="text, a sentence a line; -: standard input"
    )
    parser.add_argument("--from", dest="from_language", default="", metavar="L", help="language that is read")
    parser.add_argument("--to", dest="to_language", default="", metavar="L", help="language that is written")
    add_search_flags(parser)
    parser.add_argument("--cut", action="store_true", help="leave out what is too long instead of stopping")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default cpu)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    return parser
