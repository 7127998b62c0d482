"""A scripted model, tiny real ones, and a server on a free port of this machine."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import uvicorn

from duihua.engine.request import TokenEvent
from duihua.engine.service import EngineBusy
from duihua.engine.settings import SamplingSettings
from duihua.engine.translation_model import TranslationModel, model_inputs
from duihua.errors import GenerationError
from duihua.models.bundle import ModelCard, save_bundle
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder
from duihua.models.transformer import Transformer
from duihua.models.transformer_config import TransformerConfig
from duihua.serving.app import create_app
from duihua.serving.config import ServingConfig
from duihua.serving.conversations import ConversationStore
from duihua.serving.models import Models, find_sources, load_model
from duihua.serving.page_files import PAGE_DIRECTORY
from duihua.serving.served_model import Prompt, ServedCard, ServedModel
from duihua.serving.server import listen
from duihua.text.chat_template import Message
from duihua.text.tokenizer import Tokenizer

WAYS = {"fr-en": [("fr", "en")], "both": [("zh", "en"), ("en", "zh")]}
"""Translators of `translating_run`: name -> what each reads and writes."""
END = 256  # the scripted model's tokens are the bytes 0-255 and this end of a reply


class ScriptedSample:
    """Says a text one character at a time."""

    reused_tokens = 0

    def __init__(self, model: ScriptedModel, text: str, settings: SamplingSettings) -> None:
        self._model, self._text, self._settings = model, text, settings
        self._cancelled = self._read = False

    def cancel(self) -> None:
        if not self._cancelled and not self._read:
            self._model.running.discard(self)
        self._cancelled = True

    async def __aiter__(self) -> AsyncIterator[TokenEvent]:
        self._read = True
        try:
            count = 0
            for character in self._text:
                await asyncio.sleep(self._model.delay)
                if self._cancelled:
                    yield TokenEvent(None, finish_reason="cancelled")
                    return
                if character == "\0":
                    raise GenerationError("the script says to fail")
                data = character.encode()
                for index, byte in enumerate(data):
                    count += 1
                    self._model.written += 1
                    full = count >= self._settings.max_new_tokens
                    text = character if index == len(data) - 1 else ""
                    yield TokenEvent(byte, text, -0.5, finish_reason="length" if full else None)
                    if full:
                        return
            yield TokenEvent(END, finish_reason="stop")
        finally:
            self._model.running.discard(self)


@dataclass
class ScriptedModel:
    """Answers by `script` (a function of the whole conversation's text); counts what runs."""

    name: str = "scripted"
    script: Callable[[str], str] = lambda text: f"You said: {text.splitlines()[-1]}"
    delay: float = 0.0
    most: int = 8
    running: set[ScriptedSample] = field(default_factory=set)
    prompts: list[list[Message]] = field(default_factory=list)
    written: int = 0
    dropped_turns: int = 0
    offered: tuple[str, ...] = ()
    learnt_from: tuple[str, ...] = ()

    @property
    def card(self) -> ServedCard:
        defaults = SamplingSettings(max_new_tokens=20_000)
        return ServedCard(self.name, 6_300_000, 512, 257, defaults, prompts=self.offered, learnt_from=self.learnt_from)

    def settings(self, **sampling: Any) -> SamplingSettings:
        return replace(self.card.defaults, **{"seed": 1, **sampling})

    def chat_prompt(self, messages: Sequence[Message], settings: SamplingSettings) -> Prompt:
        self.prompts.append(list(messages))
        return Prompt(list("\n".join(m["content"] for m in messages).encode()), self.dropped_turns)

    def text_prompt(self, text: str) -> Prompt:
        return Prompt(list(text.encode()))

    def token_bytes(self, token_id: int) -> bytes:
        return b"<end>" if token_id == END else bytes([token_id])

    def is_control(self, token_id: int) -> bool:
        return token_id == END

    def submit(self, prompt: Prompt, settings: SamplingSettings, samples: int) -> list[ScriptedSample]:
        if len(self.running) + samples > self.most:
            raise EngineBusy("full")
        text = self.script(bytes(prompt.ids).decode())
        tickets = [ScriptedSample(self, text, settings) for _ in range(samples)]
        self.running.update(tickets)
        return tickets

    def close(self, drain_seconds: float) -> None:
        pass


@dataclass
class Running:
    """A server that runs in a thread."""

    address: str
    store: ConversationStore
    models: Models


@contextmanager
def run_server(
    directory: Path,
    *loaders: Callable[[], ServedModel],
    wait: bool = True,
    page: Path = PAGE_DIRECTORY,
    **settings: Any,
) -> Iterator[Running]:
    config = ServingConfig(port=0, store=str(directory / "conversations.sqlite3"), **settings)
    taken = listen("127.0.0.1", 0)
    store = ConversationStore(config.store_url)
    models = Models(list(loaders))
    app = create_app(models, store, config, page)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[taken])), daemon=True)
    models.start()
    thread.start()
    try:
        until(lambda: server.started and (not wait or models.state != "loading"))
        yield Running(f"http://127.0.0.1:{taken.getsockname()[1]}", store, models)
    finally:
        server.should_exit = True
        thread.join(20)
        taken.close()
    assert not thread.is_alive()


def run_server_of(run: Path, directory: Path, **settings: Any) -> AbstractContextManager[Running]:
    """`run_server` with the models of a run's folder."""
    config = ServingConfig(slots=2, queue=4)
    return run_server(directory, *(partial(load_model, source, config) for source in find_sources([run])), **settings)


def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for something that another thread brings about."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., None]:
    return until


@pytest.fixture(scope="session")
def serve() -> Callable[..., Any]:
    return run_server


@pytest.fixture(scope="session")
def serve_run() -> Callable[..., Any]:
    return run_server_of


@pytest.fixture
def open_page(browser: Any, server: Any) -> Iterator[Callable[..., Any]]:
    """Opens pages of the module's `server`, each in a fresh profile; at the end no script failed, no policy was violated, no
    other host was asked. forgiven: part of the words of a problem that the test itself brings about."""
    from playwright.sync_api import expect

    contexts, problems, hosts = [], [], set()

    def make(language: str = "en-US", path: str = "/", forgiven: str = "", **options: Any) -> Any:
        def note(problem: str) -> None:
            if not forgiven or forgiven not in problem:
                problems.append(problem)

        context = browser.new_context(locale=language, reduced_motion="reduce", **options)
        context.set_default_timeout(20_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: note(str(error)))
        page.on("console", lambda m: note(m.text) if m.type in {"error", "warning"} else None)
        page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
        page.goto(server.address + path)
        expect(page.locator("form.composer textarea")).to_be_focused()
        return page

    yield make
    for context in contexts:
        context.close()
    assert problems == []
    assert hosts <= {server.address.split("/")[2]}


@pytest.fixture(scope="session")
def scripted() -> type[ScriptedModel]:
    return ScriptedModel


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with random weights that writes English and Chinese characters at random."""
    texts = ["Hello, how are you today? I am fine, thank you.", "你好，今天天气很好。谢谢你，再见！🙂"] * 20
    tokenizer = Tokenizer.train(texts, 320)
    config = DecoderConfig(tokenizer.vocabulary_size, 32, 2, 4, 2, 8, 48, 128)
    network = Decoder(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim == 2:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.25)
    directory = tmp_path_factory.mktemp("run") / "sft"
    save_bundle(directory, network, tokenizer, ModelCard(title="Tiny", stage="sft"))
    return directory


@pytest.fixture(scope="session")
def translating_run(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a chat model and two translators of random weights."""
    run = tmp_path_factory.mktemp("translating") / "run"
    run.mkdir()
    tokenizer = Tokenizer.load(tiny_bundle)
    for number, (name, directions) in enumerate(WAYS.items()):
        inputs = model_inputs(tokenizer, directions)
        shape = TransformerConfig(
            vocabulary_size=inputs.vocabulary_size, width=16, encoder_layers=1, decoder_layers=1, heads=2,
            feed_forward_width=16, most_tokens=40, start_id=inputs.start_id, end_id=inputs.end_id, pad_id=inputs.pad_id,
        )  # fmt: skip
        model = TranslationModel(Transformer(shape).initialise(number), inputs, directions)
        model.save(run / name, ModelCard(title=name, stage="translate"))
    (run / "sft").symlink_to(tiny_bundle)
    return run
