"""What the routes of one app share. It hangs on the app's state: two apps in one process share nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from duihua.serving.config import ServingConfig
from duihua.serving.conversations import ConversationStore
from duihua.serving.live_replies import LiveReplies
from duihua.serving.metrics import Metrics
from duihua.serving.models import Models

if TYPE_CHECKING:
    from duihua.engine.translation_model import TranslationModel
    from duihua.models.decoder import Decoder
    from duihua.text.tokenizer import Tokenizer

InsideWriter = Callable[[str, "Decoder", "Tokenizer", str, bool], str]
"""(model's name, a network that may be hooked, its tokenizer, a text, whether the page may ask for another text) -> HTML.
Raises DuihuaError for a text that cannot be shown."""
TranslatorInsideWriter = Callable[[str, "TranslationModel", str | None, tuple[str, str], bool], str]
"""(translator's name, the translator, a text or None for a usual one, the languages that it is read and written in or "",
whether the page may ask for another text) -> HTML. Raises DuihuaError as above, and without such a direction or attention."""
INSIDE_PLACES = 4
"""Pages of GET /inside that are made or waited for at the same time; more would fill the server's threads."""


@dataclass
class Services:
    """Models, conversations, limits and counters of one app. inside, inside_translator: write the page of GET /inside, None for
    none."""

    config: ServingConfig
    models: Models
    store: ConversationStore
    metrics: Metrics = field(default_factory=Metrics)
    live: LiveReplies = field(default_factory=LiveReplies)
    inside: InsideWriter | None = None
    inside_translator: TranslatorInsideWriter | None = None
    inside_lock: threading.Lock = field(default_factory=threading.Lock)
    inside_places: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(INSIDE_PLACES))
    """One is taken by each request for that page, the one that is answered included."""


def services_of(request: Request) -> Services:
    """The services of the app that got this request."""
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


Shared = Annotated[Services, Depends(services_of)]
