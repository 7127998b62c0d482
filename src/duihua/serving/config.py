"""What an operator may set about the server. Imports nothing heavy, so that `duihua serve --help` answers at once."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from duihua.errors import ConfigError


@dataclass(frozen=True)
class ServingConfig:
    """Address, storage and limits of one server."""

    host: str = "127.0.0.1"
    """Address to listen on. Anything but this machine itself needs an API key."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    store: str = ""
    """File of the conversations, or a database URL that SQLAlchemy understands; empty: conversations.sqlite3 in
    $DUIHUA_HOME, else in the user's own data folder."""
    api_key: str = ""
    """Key that clients must send as `Authorization: Bearer KEY`; empty asks for none."""
    device: str = "cpu"
    """Where the models run: cpu, cuda."""
    slots: int = 4
    """Replies that one model writes at the same time."""
    queue: int = 32
    """Requests a model that may wait for a slot; one more is answered 429 with Retry-After."""
    deadline_seconds: float = 300.0
    """A reply that takes longer ends with finish_reason `length`."""
    body_limit_kib: int = 1024
    """Largest request body, in KiB; a larger one is answered 413."""
    origins: tuple[str, ...] = ()
    """Origins of other web pages that may call the API, beside those on this machine."""

    def check(self) -> None:
        """Raise ConfigError for values that cannot be served."""
        if not 0 <= self.port <= 65535:
            raise ConfigError(
                f"port {self.port} does not exist", where="port", remedy="Choose 1 to 65535, or 0 for a free one"
            )
        refuse_memory(self.store_url)
        for name in ("slots", "queue", "deadline_seconds", "body_limit_kib"):
            if getattr(self, name) <= 0:
                raise ConfigError(
                    f"{getattr(self, name)} is not above zero", where=name, remedy="Give a positive number"
                )
        if not is_loopback(self.host) and not self.api_key:
            raise ConfigError(
                f"{self.host} can be reached by others, and no key is set",
                where="host",
                remedy="Add --api-key KEY, or keep the default --host 127.0.0.1",
            )

    @property
    def store_url(self) -> str:
        """SQLAlchemy URL of the store: a file name becomes a SQLite URL."""
        return self.store if "://" in self.store else f"sqlite:///{self._store_file}"

    @property
    def store_place(self) -> str:
        """Where the conversations are, as one may print it: a file, or the kind of a database (never its password)."""
        return self.store.partition("://")[0] if "://" in self.store else str(self._store_file)

    @property
    def _store_file(self) -> Path:
        if self.store:
            return Path(self.store).expanduser()
        if home := os.environ.get("DUIHUA_HOME", ""):
            return Path(home).expanduser() / "conversations.sqlite3"
        data = os.environ.get("XDG_DATA_HOME", "") or str(Path.home() / ".local" / "share")
        return Path(data) / "duihua" / "conversations.sqlite3"


def refuse_memory(url: str) -> None:
    """Raise ConfigError for a SQLite database in memory, where each thread of the server would have one of its own, without
    the others' tables. One connection for all is no way out: a transaction belongs to its connection, so that a reader
    would end what a writer has begun."""
    kind, _, rest = url.partition("://")
    database, _, query = rest.removeprefix("/").partition("?")
    if kind.partition("+")[0] == "sqlite" and (database in ("", ":memory:", "file::memory:") or "mode=memory" in query):
        raise ConfigError(
            "conversations in memory cannot be shared by the threads of the server",
            where="store",
            remedy="Name a file, in a temporary folder if nothing is to stay",
        )


def is_loopback(host: str) -> bool:
    """True when only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
