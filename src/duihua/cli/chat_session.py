"""A conversation in the terminal: the messages so far, the commands, and one reply at a time.

It knows nothing of prompts and line editing; `chat.py` gives it lines and a place to write to, so that tests and pipes
drive it as a person does.
"""

from __future__ import annotations

import difflib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duihua.cli.chat_texts import COMMANDS, Language, text
from duihua.errors import DuihuaError, GenerationError
from duihua.files import write_atomic

if TYPE_CHECKING:
    from duihua.engine.chat_model import ChatModel, ReplyStream
    from duihua.engine.settings import SamplingSettings
    from duihua.text.chat_template import Message


@dataclass(frozen=True)
class Spoken:
    """A reply as it was given. seconds: until its end; first_seconds: until its first token's text."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    dropped_turns: int
    seed: int
    seconds: float
    first_seconds: float

    @property
    def tokens_per_second(self) -> float:
        return self.completion_tokens / self.seconds if self.seconds > 0 else 0.0

    def as_json(self, message: str) -> dict[str, Any]:
        """The object that `--json` prints for it."""
        return {
            "message": message,
            "reply": self.text,
            "finish_reason": self.finish_reason,
            "usage": {
                "prompt_tokens": self.prompt_tokens,
                "completion_tokens": self.completion_tokens,
                "total_tokens": self.prompt_tokens + self.completion_tokens,
            },
            "dropped_turns": self.dropped_turns,
            "seed": self.seed,
            "seconds": round(self.seconds, 4),
            "tokens_per_second": round(self.tokens_per_second, 2),
        }


class ChatSession:
    """write: gets the pieces of replies; note: gets whole lines about them. seed: of the first reply, then counted up."""

    def __init__(
        self,
        model: ChatModel,
        settings: SamplingSettings,
        *,
        system: str = "",
        language: Language = "en",
        write: Callable[[str], None],
        note: Callable[[str], None],
    ) -> None:
        self.model, self.settings, self.system, self.language = model, settings, system, language
        self._write, self._note = write, note
        self.messages: list[Message] = []

    @property
    def conversation(self) -> list[Message]:
        """System message and turns."""
        system: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        return system + self.messages

    def say(self, message: str) -> Spoken:
        """Send a message, write the reply as it comes. Ctrl-C ends the reply and keeps what there is of it.

        When it cannot be answered at all, the message is taken back and the error raised.
        """
        self.messages.append({"role": "user", "content": message})
        try:
            spoken = self._answer()
        except BaseException:
            self.messages.pop()
            raise
        if spoken.finish_reason == "cancelled" and not spoken.text:
            self.messages.pop()
            return spoken
        self.messages.append({"role": "assistant", "content": spoken.text})
        if self.settings.seed is not None:
            self.settings = replace(self.settings, seed=self.settings.seed + 1)
        return spoken

    def _answer(self) -> Spoken:
        changed = {name: getattr(self.settings, name) for name in self.settings.__dataclass_fields__}
        began = time.perf_counter()
        stream: ReplyStream = self.model.stream(self.conversation, **changed)
        first = None
        try:
            for piece in stream:
                first = first or time.perf_counter()
                self._write(printable(piece))
        except KeyboardInterrupt:
            stream.close()
        ended = time.perf_counter()
        reply = stream.reply()
        return Spoken(
            reply.text.strip(),
            reply.finish_reason,
            reply.usage.prompt_tokens,
            reply.usage.completion_tokens,
            reply.dropped_turns,
            reply.seed,
            ended - began,
            (first or ended) - began,
        )

    def remarks(self, spoken: Spoken) -> str:
        """The line under a reply: speed, and whatever was out of the ordinary."""
        parts = [
            self._text(
                "speed", tokens=spoken.completion_tokens, rate=spoken.tokens_per_second, first=spoken.first_seconds
            )
        ]
        if spoken.finish_reason in ("cancelled", "length"):
            parts.append(self._text("stopped" if spoken.finish_reason == "cancelled" else "length"))
        if spoken.dropped_turns:
            parts.append(self._text("dropped", count=spoken.dropped_turns))
        return "[" + ("；" if self.language == "zh" else "; ").join(parts) + "]"

    # -- commands -------------------------------------------------------------------------------------------------

    def command(self, line: str) -> str | None:
        """Do what a line that begins with a slash says. Returns "exit" to leave, a message to send, or None."""
        if line.startswith("//"):
            return line[1:]
        name, _, argument = line.partition(" ")
        found = next((command for command, names in COMMANDS.items() if name.lower() in names), None)
        if found is None:
            known = [name for names in COMMANDS.values() for name in names]
            near = difflib.get_close_matches(name.lower(), known, 1)
            remedy = self._text("nearest", name=near[0]) if near else self._text("see_help")
            self._note(self._text("unknown", name=name, remedy=remedy))
            return None
        if found == "exit":
            return "exit"
        if found == "retry":
            return self._take_back()
        getattr(self, f"_do_{found}")(argument.strip())
        return None

    def _do_help(self, _: str) -> None:
        self._note(self._text("help"))

    def _do_system(self, argument: str) -> None:
        if not argument:
            self._note(self._text("system_is", text=self.system) if self.system else self._text("system_none"))
            return
        self.system = "" if argument == "-" else argument
        self.messages.clear()
        self._note(self._text("system_set" if self.system else "system_removed"))

    def _do_temperature(self, argument: str) -> None:
        try:
            if argument:
                self.settings = replace(self.settings, temperature=float(argument))
        except (ValueError, GenerationError):
            self._note(self._text("temperature_wrong", text=argument))
            return
        self._note(self._text("temperature_is", value=self.settings.temperature))

    def _do_reset(self, _: str) -> None:
        self.messages.clear()
        self._note(self._text("reset"))

    def _do_save(self, argument: str) -> None:
        if not argument or not self.messages:
            self._note(self._text("nothing" if argument else "save_where"))
            return
        path = Path(argument).expanduser()
        if path.exists() and path.suffix != ".jsonl":
            self._note(self._text("exists", path=path))
            return
        try:
            self._save(path)
        except OSError as error:
            self._note(f"{path}: {error.strerror or error}")
        except DuihuaError as error:
            self._note(str(error))
        else:
            self._note(self._text("saved", path=path))

    def _save(self, path: Path) -> None:
        record = {"messages": self.conversation}
        if path.suffix == ".jsonl":
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
            return
        whole = json.dumps(record, ensure_ascii=False, indent=2) + "\n"
        if path.suffix != ".json":
            whole = "\n".join(f"**{each['role']}**\n\n{each['content']}\n" for each in self.conversation)
        write_atomic(path, whole.encode("utf-8"))

    def _take_back(self) -> str | None:
        """The last message of the user, to be sent once more."""
        if len(self.messages) < 2:
            self._note(self._text("nothing"))
            return None
        self.messages.pop()
        return self.messages.pop()["content"]

    def _text(self, key: str, /, **values: object) -> str:
        return text(key, self.language, **values)


def printable(piece: str) -> str:
    """A model's text without control characters, which could move the cursor or repaint a terminal."""
    return "".join(
        each if each in "\n\t" or not (ord(each) < 0x20 or 0x7F <= ord(each) < 0xA0) else "\ufffd" for each in piece
    )
