"""`duihua figures [FOLDER ...]`: pictures of what goes on inside a model, and one interactive page of it.

Without a folder the pictures that need no model are drawn: masks, positions, schedules, the sizes of published models. With
folders (language model, translator, recurrent model, run; their kind is read off them) the others join.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duihua import console
from duihua.cli.arguments import Parser
from duihua.errors import ConfigError, DataError

if TYPE_CHECKING:
    from duihua.report.inside.picture import Picture
    from duihua.report.inside.subject import Subject

DESCRIPTION = (
    "Draw what goes on inside a model: masks, positions, attention, queries, keys and values with real numbers, the "
    "logit lens, gates, loss curves. FOLDER: a model, a translator, a recurrent model or a run, several are possible; "
    "without one the pictures that need none are drawn. Each picture's numbers are written beside it as JSON."
)


def main(argv: Sequence[str]) -> int:
    """Draw; returns 0. Raises DuihuaError."""
    parser = Parser(prog="duihua figures", description=DESCRIPTION)
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help="models or runs")
    parser.add_argument("--list", action="store_true", help="name every picture with one line each, and draw nothing")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="draw these pictures (default: all that can be drawn)"
    )
    parser.add_argument("--text", help="the sentence to look at (default: each picture's own)")
    parser.add_argument("--target", help="a translation to look at (default: the translator's own)")
    parser.add_argument(
        "--measurements", nargs="+", default=[], metavar="FILE", help="JSON files of speed measurements or scores"
    )
    parser.add_argument("--output", default="figures", metavar="DIR", help="where the files go (default figures)")
    parser.add_argument("--format", choices=("svg", "png"), default="svg", help="default svg, whose text stays text")
    parser.add_argument("--language", choices=("en", "zh"), default="en", help="of titles and axes (default en)")
    parser.add_argument(
        "--html", action="store_true", help="also write inside.html: attention viewer, lens and all pictures"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(argv)
    with console.json_output(arguments.json):
        if arguments.list:
            _list(arguments.language)
        else:
            _draw(arguments)
    return 0


def _list(language: Any) -> None:
    from duihua.report.inside.gallery import PICTURES
    from duihua.report.inside.picture import NEEDS
    from duihua.report.inside.style import pick

    rows = [
        {
            "name": one.name,
            "about": pick(one.about, language),
            "needs": pick(NEEDS[one.needs], language) if one.needs else None,
        }
        for one in PICTURES.values()
    ]
    if console.json_mode():
        console.emit_json({"pictures": rows})
    else:
        columns = ["图片", "内容", "需要"] if language == "zh" else ["picture", "what it shows", "needs"]
        console.table("", columns, [[row["name"], row["about"], row["needs"]] for row in rows])


def _draw(arguments: argparse.Namespace) -> None:
    from duihua.files import write_atomic, write_json
    from duihua.report.inside.folders import subject_of
    from duihua.report.inside.style import drawn

    output = Path(arguments.output)
    subject = subject_of(
        [Path(folder) for folder in arguments.folders],
        [Path(file) for file in arguments.measurements],
        text=arguments.text,
        target=arguments.target,
        language=arguments.language,
    )
    chosen, left_out = _choose(arguments.only, subject)
    written: list[dict[str, str]] = []
    shown: list[tuple[Picture, dict[str, Any]]] = []
    for one in chosen:
        try:
            found = one.data(subject)
        except DataError as error:  # the files hold nothing for this picture
            if arguments.only:
                raise
            left_out.append({"name": one.name, "because": str(error)})
            continue
        shown.append((one, found))
        file, numbers = output / f"{one.name}.{arguments.format}", output / f"{one.name}.json"
        content = drawn(lambda one=one, found=found: one.draw(found, arguments.language), arguments.format, one.name)  # type: ignore[misc]
        write_json(numbers, found)
        write_atomic(file, content)
        written.append({"name": one.name, "file": str(file), "data": str(numbers)})
        console.say(f"{one.name}: {file}")
    for row in left_out:
        console.say(f"{row['name']}: left out, {row['because']}")
    page = None
    if arguments.html:
        from duihua.report.inside.page import write_page

        page = write_page(output / "inside.html", subject, shown)
        console.say(f"page: {page}")
    if arguments.json:
        console.emit_json({"pictures": written, "left_out": left_out, "page": None if page is None else str(page)})


def _choose(only: Sequence[str] | None, subject: Subject) -> tuple[list[Picture], list[dict[str, str]]]:
    """What to draw, and what cannot be drawn with what was given. Raises ConfigError where that was asked for by name."""
    from duihua.report.inside.gallery import PICTURES, picture
    from duihua.report.inside.picture import NEEDS

    if only:
        chosen = [picture(name) for name in dict.fromkeys(only)]
        for one in chosen:
            if one.needs is not None and subject.lacks(one.needs):
                raise ConfigError(f"needs {NEEDS[one.needs].en}", where=one.name, remedy="Add it to the command")
        return chosen, []
    chosen, left_out = [], []
    for one in PICTURES.values():
        if one.needs is not None and subject.lacks(one.needs):
            left_out.append({"name": one.name, "because": f"it needs {NEEDS[one.needs].en}"})
        else:
            chosen.append(one)
    return chosen, left_out
