"""Replies of the page that are being written at this moment, by the id of their message.

Why: the page stops a reply by name and then reads its end on the stream that it has, so that what it shows and what is
stored are the same text; and whoever opens the conversation meanwhile sees how far it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from duihua.serving.generation import Generation


@dataclass
class LiveReply:
    """A reply in the making."""

    conversation_id: str
    generation: Generation
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """So far."""
        return "".join(self.pieces)


@dataclass
class LiveReplies:
    """All of them. Changed in the event loop's thread alone."""

    _replies: dict[str, LiveReply] = field(default_factory=dict)

    def add(self, message_id: str, reply: LiveReply) -> None:
        """Known from now on."""
        self._replies[message_id] = reply

    def remove(self, message_id: str) -> None:
        """It has ended."""
        self._replies.pop(message_id, None)

    def get(self, message_id: str) -> LiveReply | None:
        """The reply, if it is being written."""
        return self._replies.get(message_id)

    def stop(self, message_id: str) -> bool:
        """End it early; false when it is not being written (any more)."""
        reply = self._replies.get(message_id)
        if reply is not None:
            reply.generation.cancel()
        return reply is not None

    def stop_conversation(self, conversation_id: str) -> None:
        """End every reply of a conversation, because it is deleted."""
        for reply in list(self._replies.values()):
            if reply.conversation_id == conversation_id:
                reply.generation.cancel()
