"""What the routes of one app share. It hangs on the app's state: two apps in one process share nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from duihua.serving.config import ServingConfig
from duihua.serving.conversations import ConversationStore
from duihua.serving.live_replies import LiveReplies
from duihua.serving.metrics import Metrics
from duihua.serving.models import Models


@dataclass
class Services:
    """Models, conversations, limits and counters of one app."""

    config: ServingConfig
    models: Models
    store: ConversationStore
    metrics: Metrics = field(default_factory=Metrics)
    live: LiveReplies = field(default_factory=LiveReplies)


def services_of(request: Request) -> Services:
    """The services of the app that got this request."""
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


Shared = Annotated[Services, Depends(services_of)]
