"""`duihua chat BUNDLE`: talk to a model in the terminal, through a pipe, or with one message."""

from __future__ import annotations

import argparse
import contextlib
import io
import locale
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duihua import console
from duihua.cli.arguments import Parser
from duihua.cli.chat_texts import COMMANDS, Language, language_of_locale, text
from duihua.config import field_help
from duihua.engine.settings import SamplingSettings
from duihua.errors import ConfigError, DuihuaError
from duihua.interrupts import signals_wait

if TYPE_CHECKING:
    from duihua.cli.chat_session import ChatSession
    from duihua.engine.chat_model import ChatModel

KEPT_LINES = 2000
SMALL = 200_000_000
"""Parameters below which a model is told to babble."""
FLAGS = {
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "min_p": float,
    "repetition_penalty": float,
    "presence_penalty": float,
    "frequency_penalty": float,
    "max_new_tokens": int,
    "seed": int,
}
"""Sampling settings that can be given as flags, with their types."""


def main(argv: Sequence[str]) -> int:
    """Run the command. Returns 0. Raises DuihuaError for a directory that is no model and for a bad setting."""
    arguments = _parser().parse_args(list(argv))
    interactive = arguments.message is None and sys.stdin.isatty()
    if arguments.json and interactive:
        raise ConfigError("needs a message", where="--json", remedy="Add --message TEXT, or pipe lines in")
    if arguments.message is not None and not arguments.message.strip():
        raise ConfigError("is empty", where="--message", remedy="Write what to send")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # a stray byte in a pipe is no reason to stop
    with console.json_output(arguments.json):
        with signals_wait():
            from duihua.cli.chat_session import ChatSession
            from duihua.engine.chat_model import ChatModel

        model = ChatModel.load(arguments.bundle, device=arguments.device, slots=1)
        _ = model.template  # a model without one is told apart here, before anyone has typed
        session = ChatSession(
            model,
            _settings(model, arguments),
            system=arguments.system,
            language=arguments.language,
            write=_ignore if arguments.json else _write,
            note=console.say if interactive else console.warn,
        )
        if interactive:
            return _talk(session)
        lines = sys.stdin if arguments.message is None else [arguments.message]
        turns = list(_answer_lines(session, lines, commands=arguments.message is None, quiet=arguments.json))
        if arguments.json:
            one = arguments.message is not None
            console.emit_json({"model": model.name, **(turns[0] if one else {"turns": turns})})
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="duihua chat",
        description="Talk to a model: in the terminal, line by line through a pipe, or with one --message.",
        epilog="Inside: " + "  ".join(names[0] for names in COMMANDS.values()),
    )
    parser.add_argument(
        "bundle", metavar="BUNDLE", help="a bundle, or a Hugging Face directory of GPT-2, Llama or Qwen3"
    )
    parser.add_argument("--message", metavar="TEXT", help="send this one message, print the reply, leave")
    parser.add_argument("--system", metavar="TEXT", default="", help="the system message")
    helps = field_help(SamplingSettings)
    for name, kind in FLAGS.items():
        description = " ".join(helps[name].split()).rstrip(".").replace("%", "%%") + " (default: the model's)"
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar=kind.__name__.upper(), help=description)
    parser.add_argument("--stop", action="append", metavar="TEXT", help="end replies at this text; may be repeated")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument(
        "--language",
        choices=["en", "zh"],
        default=language_of_locale(),
        help="of the commands and remarks (default: by locale)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    return parser


def _settings(model: ChatModel, arguments: argparse.Namespace) -> SamplingSettings:
    """The model's defaults with the flags over them."""
    given: dict[str, Any] = {name: getattr(arguments, name) for name in FLAGS if getattr(arguments, name) is not None}
    if arguments.stop:
        given["stop"] = tuple(arguments.stop)
    assert given.keys() <= {field.name for field in fields(SamplingSettings)}
    return replace(model.defaults, **given)


def _write(piece: str) -> None:
    sys.stdout.write(piece)
    sys.stdout.flush()


def _ignore(_: str) -> None:
    pass


def _answer_lines(
    session: ChatSession, lines: Iterator[str] | Sequence[str], *, commands: bool, quiet: bool
) -> Iterator[dict[str, Any]]:
    """Answer each line; a line that begins with a slash is a command where `commands` says so."""
    for line in _joined(lines) if commands else lines:
        message: str | None = line
        if commands and line.startswith("/"):
            message = session.command(line)
            if message == "exit":
                return
        if not message or not message.strip():
            continue
        spoken = session.say(message)
        if not quiet:
            _write("\n")
        if spoken.dropped_turns:
            console.warn(session.remarks(spoken))
        if spoken.finish_reason == "cancelled":  # Ctrl-C; nobody is there to give another line
            raise KeyboardInterrupt
        yield spoken.as_json(message)


def _joined(lines: Iterator[str] | Sequence[str]) -> Iterator[str]:
    """Lines without their ends; one that ends with a backslash is joined to the next."""
    held = ""
    for line in lines:
        part = held + line.rstrip("\r\n")
        if part.endswith("\\"):
            held = part[:-1] + "\n"
            continue
        held = ""
        yield part.strip()
    if held:
        yield held.strip()


# -- with a person ----------------------------------------------------------------------------------------------------


def _talk(session: ChatSession) -> int:
    model, language = session.model, session.language
    stage = text("stage", language, stage=model.stage) if model.stage else ""
    parameters = sum(weight.numel() for weight in model.network.parameters())
    console.say(
        text(
            "banner",
            language,
            name=model.name,
            stage=stage,
            parameters=_count(parameters, language),
            context=model.context,
            reply=min(session.settings.max_new_tokens, model.context),
        )
    )
    if model.learnt_from and parameters < SMALL:
        console.say(text("limits", language, sources=", ".join(model.learnt_from)))
    if model.prompts:
        console.say(text("try", language, prompts=" | ".join(model.prompts)))
    if model.stage in ("pretrain", "tokenizer"):
        console.say(text("base", language))
    console.say(text("hint", language))
    with _line_editing(), _interrupts() as interrupts:
        for line in _joined(_typed_lines(language, interrupts)):
            message: str | None = line
            if line.startswith("/"):
                message = session.command(line)
                if message == "exit":
                    break
            if message and message.strip():
                _exchange(session, message, interrupts)
    console.say(text("bye", language))
    return 0


class _Interrupts:
    """Whether Ctrl-C means anything now."""

    allowed = False

    def handle(self, *_: object) -> None:
        if self.allowed:
            raise KeyboardInterrupt


@contextlib.contextmanager
def _interrupts() -> Iterator[_Interrupts]:
    """Ctrl-C acts only where `allowed` is set, so that one that comes between two such places never ends the program."""
    interrupts = _Interrupts()
    before = signal.signal(signal.SIGINT, interrupts.handle)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)


def _exchange(session: ChatSession, message: str, interrupts: _Interrupts) -> None:
    try:
        try:
            interrupts.allowed = True
            _write(text("model", session.language))
            spoken = session.say(message)
        finally:
            interrupts.allowed = False
    except (DuihuaError, KeyboardInterrupt) as error:
        _write("\n")
        console.say(str(error) if isinstance(error, DuihuaError) else f"[{text('stopped', session.language)}]")
        return
    _write("\n")
    console.say(_dim(session.remarks(spoken)))


def _typed_lines(language: Language, interrupts: _Interrupts) -> Iterator[str]:
    """Lines until Ctrl-D. Ctrl-C empties the line and says how to leave."""
    while True:
        try:
            try:
                interrupts.allowed = True
                line = input(text("you", language))
            finally:
                interrupts.allowed = False
        except EOFError:
            _write("\n")
            return
        except KeyboardInterrupt:
            _write("\n")
            console.say(text("again", language))
            continue
        yield line + "\n"


COUNTS: dict[Language, tuple[tuple[float, str], ...]] = {
    "en": ((1e9, "B"), (1e6, "M"), (1e3, "k")),
    "zh": ((1e8, " 亿"), (1e4, " 万")),
}


def _count(number: int, language: Language) -> str:
    """7340032 -> 7.3M, 734.0 万"""
    for size, suffix in COUNTS[language]:
        if number >= size:
            return f"{number / size:.1f}{suffix}"
    return str(number)


def _dim(line: str) -> str:
    return f"\x1b[2m{line}\x1b[0m" if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else line


@contextlib.contextmanager
def _line_editing() -> Iterator[None]:
    """Arrow keys, commands completed by Tab, and a history kept between chats, where Python was built with readline."""
    if locale.nl_langinfo(locale.CODESET).upper() != "UTF-8":  # else readline takes Chinese for key commands
        with contextlib.suppress(locale.Error):
            locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
    try:
        import readline
    except ImportError:
        yield
        return
    names = [name for command in COMMANDS.values() for name in command]
    readline.set_completer_delims(" ")
    readline.set_completer(lambda start, n: [*(f"{x} " for x in names if start and x.startswith(start)), None][n])
    readline.parse_and_bind("tab: complete")
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    history = state / "duihua" / "chat_history"
    with contextlib.suppress(OSError):
        readline.read_history_file(history)
    try:
        yield
    finally:
        readline.set_history_length(KEPT_LINES)
        try:
            history.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            readline.write_history_file(history)
            history.chmod(0o600)
        except OSError as error:
            console.warn(f"{history}: {error.strerror or error}")
