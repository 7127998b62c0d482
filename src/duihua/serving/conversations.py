"""Conversations as trees of messages, in a SQL database (SQLite file by default).

Why a tree: regenerating a reply or editing a question must lose nothing. A message knows its parent; siblings are the
versions of one turn; a conversation remembers the leaf that the reader looks at, and the path from the root to that
leaf is what the model sees. Why on the server: a browser's storage is lost with the browser.

The schema carries a version. An older database is brought up step by step when it is opened; a newer one is refused, so
that an old program never damages it.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import JSON, Connection, ForeignKey, Text, create_engine, event, func, or_, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from duihua.errors import ServingError
from duihua.serving.config import refuse_memory

TITLE_LENGTH: Final = 60
Row = TypeVar("Row", bound="Base")


class Base(DeclarativeBase):
    """Tables of the store."""


class SchemaVersion(Base):
    """One row: the version of the schema that the tables have."""

    __tablename__ = "schema_version"
    version: Mapped[int] = mapped_column(primary_key=True)


class Conversation(Base):
    """A tree of messages with its model, system prompt and sampling settings."""

    __tablename__ = "conversations"
    id: Mapped[str] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(Text, default="")
    system: Mapped[str] = mapped_column(Text, default="")
    model: Mapped[str] = mapped_column(Text, default="")
    settings: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    leaf_id: Mapped[str | None] = mapped_column(default=None)
    created_at: Mapped[float]
    updated_at: Mapped[float] = mapped_column(index=True)


class StoredMessage(Base):
    """One version of one turn. `details` holds what was measured: tokens, seconds, finish reason, settings."""

    __tablename__ = "messages"
    id: Mapped[str] = mapped_column(primary_key=True)
    conversation_id: Mapped[str] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"), index=True)
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"), index=True)
    sequence: Mapped[int]
    role: Mapped[str] = mapped_column(Text)
    content: Mapped[str] = mapped_column(Text)
    model: Mapped[str] = mapped_column(Text, default="")
    details: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    created_at: Mapped[float]


def _create_tables(connection: Connection) -> None:
    Base.metadata.create_all(connection)


MIGRATIONS: Final[tuple[Callable[[Connection], None], ...]] = (_create_tables,)
"""Step n brings a database of version n to version n + 1. Never change a step that was released: add one."""


class NotFoundError(ServingError):
    """No such conversation or message."""


class ConversationStore:
    """All conversations of one server. Every method is one transaction and may be called from any thread."""

    def __init__(self, url: str) -> None:
        refuse_memory(url)
        if url.startswith("sqlite:///"):
            Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        self._engine = create_engine(url)
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", _prepare_sqlite)
        self._writing = threading.Lock()
        self._sessions = sessionmaker(self._engine, expire_on_commit=False)
        try:
            self._migrate()
        except DBAPIError as error:
            raise ServingError(
                f"cannot open the conversations: {error.orig}",
                where=url.removeprefix("sqlite:///"),
                remedy="Name another file with --store, or mend this one",
            ) from error

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def _migrate(self) -> None:
        with self._engine.begin() as connection:
            SchemaVersion.__table__.create(connection, checkfirst=True)  # type: ignore[attr-defined]
            version = connection.scalar(select(SchemaVersion.version)) or 0
            if version > len(MIGRATIONS):
                raise ServingError(
                    f"conversations of schema version {version}, this program knows {len(MIGRATIONS)}",
                    where=str(self._engine.url.database),
                    remedy="Update duihua, or name another file with --store",
                )
            for step in MIGRATIONS[version:]:
                step(connection)
            if version < len(MIGRATIONS):
                connection.execute(text("DELETE FROM schema_version"))
                connection.execute(text("INSERT INTO schema_version VALUES (:v)"), {"v": len(MIGRATIONS)})

    @contextmanager
    def _session(self, *, writes: bool = False) -> Iterator[Session]:
        """One transaction. Writers of this process take turns: SQLite has one writer, and a queue beats its retries."""
        with self._writing if writes else nullcontext(), self._sessions.begin() as session:
            yield session

    # Conversations

    def create(
        self, *, title: str = "", system: str = "", model: str = "", settings: dict[str, Any] | None = None
    ) -> Conversation:
        """Start an empty conversation."""
        now = time.time()
        conversation = Conversation(
            id=new_id(),
            title=title,
            system=system,
            model=model,
            settings=settings or {},
            created_at=now,
            updated_at=now,
        )
        with self._session(writes=True) as session:
            session.add(conversation)
        return conversation

    def list(self, search: str = "", limit: int = 200) -> Sequence[Conversation]:
        """The latest conversations first; with `search`, those whose title or messages contain it."""
        query = select(Conversation).order_by(Conversation.updated_at.desc(), Conversation.id).limit(limit)
        if search := search.strip():
            said = select(StoredMessage.conversation_id).where(StoredMessage.content.icontains(search, autoescape=True))
            query = query.where(or_(Conversation.title.icontains(search, autoescape=True), Conversation.id.in_(said)))
        with self._session() as session:
            return session.scalars(query).all()

    def get(self, conversation_id: str) -> Conversation:
        """One conversation without its messages; NotFoundError when there is none."""
        with self._session() as session:
            return _find(session, Conversation, conversation_id)

    def update(self, conversation_id: str, **changes: Any) -> Conversation:
        """Change title, system, model, settings or leaf_id (a message of this conversation)."""
        with self._session(writes=True) as session:
            conversation = _find(session, Conversation, conversation_id)
            if (leaf := changes.get("leaf_id")) is not None:
                _find_message(session, conversation_id, leaf)
            for name, value in changes.items():
                assert name in {"title", "system", "model", "settings", "leaf_id"}, name
                setattr(conversation, name, value)
            return conversation

    def delete(self, conversation_id: str) -> None:
        """Delete a conversation and its messages.

        The links between messages go first: SQLite follows a cascade from parent to child to grandchild for 1,000 steps
        at most, and a conversation of more messages could not be deleted.
        """
        with self._session(writes=True) as session:
            conversation = _find(session, Conversation, conversation_id)
            messages = update(StoredMessage).where(StoredMessage.conversation_id == conversation_id)
            session.execute(messages.values(parent_id=None))
            session.delete(conversation)

    # Messages

    def messages(self, conversation_id: str) -> Sequence[StoredMessage]:
        """All messages of the tree, in the order in which they were written."""
        with self._session() as session:
            _find(session, Conversation, conversation_id)
            query = select(StoredMessage).where(StoredMessage.conversation_id == conversation_id)
            return session.scalars(query.order_by(StoredMessage.sequence)).all()

    def path(self, conversation_id: str, leaf_id: str | None) -> Sequence[StoredMessage]:
        """From the first message to `leaf_id`, each the parent of the next: what the model is given."""
        by_id = {message.id: message for message in self.messages(conversation_id)}
        path: list[StoredMessage] = []
        while leaf_id is not None:
            if leaf_id not in by_id:
                raise NotFoundError(
                    "no such message", where=leaf_id, remedy="Read the conversation again; it may have been changed"
                )
            path.append(by_id[leaf_id])
            leaf_id = path[-1].parent_id
        return path[::-1]

    def add(
        self,
        conversation_id: str,
        *,
        parent_id: str | None,
        role: str,
        content: str,
        model: str = "",
        details: dict[str, Any] | None = None,
    ) -> StoredMessage:
        """Hang a message under `parent_id` (None: a first message) and make it the leaf that is looked at."""
        with self._session(writes=True) as session:
            conversation = _find(session, Conversation, conversation_id)
            if parent_id is not None:
                _find_message(session, conversation_id, parent_id)
            count = func.coalesce(func.max(StoredMessage.sequence), -1) + 1
            sequence = session.scalar(select(count).where(StoredMessage.conversation_id == conversation_id)) or 0
            now = time.time()
            message = StoredMessage(
                id=new_id(),
                conversation_id=conversation_id,
                parent_id=parent_id,
                sequence=sequence,
                role=role,
                content=content,
                model=model,
                details=details or {},
                created_at=now,
            )
            session.add(message)
            conversation.leaf_id, conversation.updated_at = message.id, now
            if not conversation.title and role == "user":
                conversation.title = title_of(content)
            return message

    def write(self, message_id: str, *, content: str, details: dict[str, Any]) -> StoredMessage:
        """Fill in a reply that has ended. The conversation may have been deleted meanwhile: NotFoundError."""
        with self._session(writes=True) as session:
            message = _find(session, StoredMessage, message_id)
            message.content, message.details = content, details
            _find(session, Conversation, message.conversation_id).updated_at = time.time()
            return message

    def judge(self, conversation_id: str, message_id: str, *, vote: int, correction: str) -> StoredMessage:
        """Keep what the reader says of a reply in its details: vote 1, -1 or 0 for none, and the text wanted instead.

        `data/votes.py` makes preferences of them. Raises NotFoundError, also for a message that is no reply.
        """
        with self._session(writes=True) as session:
            message = _find_message(session, conversation_id, message_id)
            if message.role != "assistant":
                raise NotFoundError("no such reply", where=message_id, remedy="Name a message of the assistant")
            said = {name: value for name, value in (("vote", vote), ("correction", correction.strip())) if value}
            kept = {name: value for name, value in message.details.items() if name not in ("vote", "correction")}
            message.details = {**kept, **said}
            return message

    def discard(self, message_id: str) -> None:
        """Take back a message that was just added; its parent is looked at again."""
        with self._session(writes=True) as session:
            message = _find(session, StoredMessage, message_id)
            _find(session, Conversation, message.conversation_id).leaf_id = message.parent_id
            session.delete(message)


def title_of(content: str) -> str:
    """A title out of the first user message: its first line, at most TITLE_LENGTH characters."""
    line = " ".join(content.strip().split("\n", 1)[0].split())
    return line if len(line) <= TITLE_LENGTH else line[: TITLE_LENGTH - 1].rstrip() + "…"


def new_id() -> str:
    """96 random bits: nobody guesses another's conversation."""
    return secrets.token_hex(12)


def _find(session: Session, kind: type[Row], row_id: str) -> Row:
    row = session.get(kind, row_id)
    if row is None:
        raise NotFoundError(
            f"no such {'conversation' if kind is Conversation else 'message'}",
            where=row_id,
            remedy="Look it up in the list of conversations; it may have been deleted",
        )
    return row


def _find_message(session: Session, conversation_id: str, message_id: str) -> StoredMessage:
    message = _find(session, StoredMessage, message_id)
    if message.conversation_id != conversation_id:
        raise NotFoundError(
            "no such message in this conversation",
            where=message_id,
            remedy="Read the conversation again; it may have been changed",
        )
    return message


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    """Write-ahead log: readers do not wait for the writer. Foreign keys are off in SQLite unless asked for."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=5000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
