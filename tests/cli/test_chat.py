from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from duihua.cli import chat
from duihua.cli.chat_session import ChatSession, printable
from duihua.cli.chat_texts import COMMANDS, TEXTS, language_of_locale
from duihua.engine.chat_model import ChatModel
from duihua.errors import BundleError, ConfigError, GenerationError
from duihua.models.bundle import ModelCard, save_bundle
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder
from duihua.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = Tokenizer.train(["how are you? fine, thank you. 你好，再见。"] * 20, 290)
    config = DecoderConfig(
        vocabulary_size=tokenizer.vocabulary_size,
        width=16,
        layers=1,
        heads=2,
        key_value_heads=1,
        head_width=8,
        feed_forward_width=24,
        context=4096,
    )
    network = Decoder(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim == 2:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
    directory = tmp_path_factory.mktemp("run") / "ppo"
    card = ModelCard(title="Tiny", stage="ppo", terms=[{"name": "small-talk"}], prompts=("Hello there", "你好"))
    save_bundle(directory, network, tokenizer, card)
    return directory


@pytest.fixture
def type_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def feed(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8"))

    return feed


SHORT = ["--max-new-tokens", "6", "--seed", "1"]


def test_one_message_as_json_is_one_object(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert chat.main([str(bundle), "--message", "你好", "--json", *SHORT]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["message"] == "你好"
    assert found["finish_reason"] in ("stop", "length")
    assert 1 <= found["usage"]["completion_tokens"] <= 6
    assert found["seed"] == 1
    reply = ChatModel.load(bundle).reply([{"role": "user", "content": "你好"}], seed=1, max_new_tokens=6)
    assert found["reply"] == reply.text.strip()
    assert found["usage"]["prompt_tokens"] == reply.usage.prompt_tokens


def test_one_message_streams_the_text_alone(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert chat.main([str(bundle), "--message", "hello", *SHORT]) == 0
    reply = ChatModel.load(bundle).chat([{"role": "user", "content": "hello"}], seed=1, max_new_tokens=6)
    assert capsys.readouterr().out == printable(reply) + "\n"


def test_a_pipe_is_answered_line_by_line_in_one_conversation(
    bundle: Path, capsys: pytest.CaptureFixture[str], type_in: Callable[[str], None]
) -> None:
    type_in("hello\n\n/temperature 0.5\ntwo\\\nlines\n//slash\n/exit\nnever\n")
    assert chat.main([str(bundle), "--json", *SHORT]) == 0
    printed = capsys.readouterr()
    turns = json.loads(printed.out)["turns"]
    assert [turn["message"] for turn in turns] == ["hello", "two\nlines", "/slash"]
    assert turns[2]["usage"]["prompt_tokens"] > turns[0]["usage"]["prompt_tokens"]
    assert "temperature 0.5" in printed.err


def test_json_without_a_message_in_a_terminal_is_refused(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    with pytest.raises(ConfigError, match="--message"):
        chat.main([str(bundle), "--json"])


@pytest.mark.parametrize(
    ("flags", "error", "says"),
    [
        (["--message", " "], ConfigError, "empty"),
        (["--message", "x", "--temperature", "-1"], GenerationError, "temperature"),
        (["--message", "word " * 9000], GenerationError, "context is 4096"),
    ],
)
def test_bad_input_is_one_clear_line(bundle: Path, flags: list[str], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        chat.main([str(bundle), *flags])


def test_a_directory_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"config\.json"):
        chat.main([str(tmp_path), "--message", "x"])


def test_help_shows_every_flag_and_needs_no_torch() -> None:
    script = (
        "import sys; from duihua.cli.chat import main\ntry: main(['--help'])\nfinally: print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0
    assert run.stdout.endswith("False\n")
    for flag in ("--message", "--temperature", "--seed", "--json", "--language"):
        assert flag in run.stdout


# -- the session ------------------------------------------------------------------------------------------------------


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def session(bundle: Path, notes: list[str]) -> ChatSession:
    model = ChatModel.load(bundle)
    return ChatSession(model, model.settings(max_new_tokens=5, seed=1), write=lambda _: None, note=notes.append)


@pytest.mark.parametrize("index", [0, -1], ids=["English", "Chinese"])
def test_every_command_answers_to_its_names(session: ChatSession, notes: list[str], tmp_path: Path, index: int) -> None:
    name = {command: names[index] for command, names in COMMANDS.items()}
    session.command(name["help"])
    assert "/system" in notes[-1]
    session.command(f"{name['system']} Be kind.")
    assert session.conversation == [{"role": "system", "content": "Be kind."}]
    session.command(name["system"])
    assert "Be kind." in notes[-1]
    session.command(f"{name['temperature']} 0.25")
    assert session.settings.temperature == 0.25
    for wrong in ("hot", "-1"):
        session.command(f"{name['temperature']} {wrong}")
        assert wrong in notes[-1]
        assert session.settings.temperature == 0.25
    session.command(f"{name['save']} {tmp_path / 'early.json'}")
    assert not (tmp_path / "early.json").exists()
    session.say("hello")
    assert [each["role"] for each in session.conversation] == ["system", "user", "assistant"]
    assert session.command(name["retry"]) == "hello"
    assert session.messages == []
    session.say("hello")
    session.command(f"{name['save']} {tmp_path / 'a.json'}")
    assert json.loads((tmp_path / "a.json").read_text())["messages"] == session.conversation
    session.command(name["reset"])
    assert [each["role"] for each in session.conversation] == ["system"]
    session.command(f"{name['system']} -")
    assert session.conversation == []
    assert session.command(name["exit"]) == "exit"


def test_saving_adds_training_lines_and_never_overwrites(
    session: ChatSession, notes: list[str], tmp_path: Path
) -> None:
    session.say("hello")
    lines, page = tmp_path / "new" / "a.jsonl", tmp_path / "a.md"
    for _ in range(2):
        session.command(f"/save {lines}")
    assert [json.loads(line)["messages"] for line in lines.read_text().splitlines()] == [session.messages] * 2
    session.command(f"/save {page}")
    assert "**user**\n\nhello" in page.read_text()
    page.write_text("mine")
    session.command(f"/save {page}")
    assert page.read_text() == "mine"
    assert "exists" in notes[-1]
    session.command("/save /dev/null/x.json")
    assert "/dev/null/x.json" in notes[-1]


def test_an_unknown_command_names_the_nearest_and_is_not_sent(session: ChatSession, notes: list[str]) -> None:
    assert session.command("/temprature 1") is None
    assert "/temperature" in notes[-1]
    assert session.command("/xyzzy") is None
    assert "/help" in notes[-1]
    assert session.messages == []


def test_a_message_that_cannot_be_answered_is_taken_back(session: ChatSession) -> None:
    session.say("hello")
    before = list(session.messages)
    with pytest.raises(GenerationError):
        session.say("word " * 9000)
    assert session.messages == before


def test_an_interrupt_keeps_the_beginning_of_the_reply(bundle: Path) -> None:
    model = ChatModel.load(bundle)
    pieces: list[str] = []

    def write(piece: str) -> None:
        pieces.append(piece)
        if len(pieces) == 20:
            raise KeyboardInterrupt

    session = ChatSession(
        model, model.settings(max_new_tokens=4000, seed=1, stop_ids=()), write=write, note=lambda _: None
    )
    spoken = session.say("hello")
    assert spoken.finish_reason == "cancelled"
    assert session.messages[-1] == {"role": "assistant", "content": spoken.text}
    assert printable(spoken.text) == "".join(pieces).strip()
    assert "stopped" in session.remarks(spoken)
    assert model.engine.active == 0


def test_control_characters_of_a_model_never_reach_the_terminal() -> None:
    assert printable("a\x1b[2Jb\x9b\x07\r\x7f\n\t你🙂") == "a\ufffd[2Jb\ufffd\ufffd\ufffd\ufffd\n\t你🙂"


def test_texts_exist_in_both_languages_with_the_same_blanks() -> None:
    blanks = re.compile(r"\{(\w+)")
    for english, chinese in TEXTS.values():
        assert sorted(blanks.findall(english)) == sorted(blanks.findall(chinese))
        assert english != chinese


def test_the_language_follows_the_locale() -> None:
    assert language_of_locale({"LANG": "zh_CN.UTF-8"}) == "zh"
    assert language_of_locale({"LANG": "zh_CN.UTF-8", "LC_ALL": "en_US.UTF-8"}) == "en"
    assert language_of_locale({}) == "en"


# -- a real terminal --------------------------------------------------------------------------------------------------


class Terminal:
    """A program on a pseudo-terminal."""

    def __init__(self, arguments: list[str], environment: dict[str, str]) -> None:
        self.process, self.master = self._start(arguments, environment)
        self.seen = ""

    @staticmethod
    def _start(arguments: list[str], environment: dict[str, str]) -> tuple[int, int]:
        process, master = pty.fork()
        if process == 0:
            os.execve(arguments[0], arguments, environment)
        return process, master

    def expect(self, what: str, seconds: float = 60.0) -> str:
        """Read until `what` appears; everything up to it."""
        deadline = time.monotonic() + seconds
        while what not in self.seen:
            assert time.monotonic() < deadline, f"waited for {what!r}, saw {self.seen!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += os.read(self.master, 65536).decode("utf-8", "replace")
        before, self.seen = self.seen.split(what, 1)
        return before

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def press_until(self, key: str, what: str) -> None:
        """Press `key` now and then until `what` appears: a key pressed while the line editor starts can be lost."""
        for _ in range(60):
            self.type(key)
            with contextlib.suppress(AssertionError):
                self.expect(what, seconds=1.0)
                return
        raise AssertionError(f"pressed {key!r} in vain, saw {self.seen!r}")

    def close(self) -> int:
        _, status = os.waitpid(self.process, 0)
        os.close(self.master)
        return os.waitstatus_to_exitcode(status)


@pytest.fixture
def terminal(bundle: Path, tmp_path: Path) -> Iterator[Terminal]:
    script = "import sys; from duihua.cli.chat import main; sys.exit(main(sys.argv[1:]))"
    flags = ["--max-new-tokens", "1500", "--temperature", "1", "--top-p", "1", "--seed", "1", "--stop", "nothing"]
    environment: dict[str, Any] = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "LC_ALL": "C.UTF-8", "TERM": "dumb"}
    found = Terminal([sys.executable, "-c", script, str(bundle), "--language", "en", *flags], environment)
    yield found
    with contextlib.suppress(ProcessLookupError):
        os.kill(found.process, signal.SIGKILL)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_control_c_stops_the_reply_and_not_the_program(terminal: Terminal, tmp_path: Path) -> None:
    banner = terminal.expect("you> ")
    assert "context of 4096 tokens" in banner
    assert "k parameters" in banner
    assert "learnt from small-talk; beyond that" in banner
    assert "begin with: Hello there | 你好" in banner
    terminal.type("/temperature 2\n")
    terminal.expect("you> ")
    for _ in range(30):  # a random model may end a reply by itself; then another one is asked for
        terminal.type("你好\n")
        terminal.expect("model> ")
        terminal.type("\x03")
        if "stopped" in terminal.expect("you> "):
            break
    else:
        pytest.fail("no reply was stopped")
    terminal.type("again\n")
    terminal.expect("tokens/s")
    terminal.expect("you> ")
    terminal.press_until("\x03", "/exit leaves")
    terminal.press_until("\x04", "Goodbye.")
    assert terminal.close() == 0
    assert "你好" in (tmp_path / "duihua" / "chat_history").read_text()


def test_parameters_are_counted_as_each_language_counts() -> None:
    counted = {number: (chat._count(number, "en"), chat._count(number, "zh")) for number in (950, 656_256, 7_340_032)}
    assert counted == {950: ("950", "950"), 656_256: ("656.3k", "65.6 万"), 7_340_032: ("7.3M", "734.0 万")}
    assert chat._count(1_500_000_000, "en") == "1.5B" and chat._count(1_500_000_000, "zh") == "15.0 亿"
