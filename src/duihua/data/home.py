"""Where downloaded archives and what is built from them live: one folder, found in one way.

The order is the one people expect of command-line tools: what the command says, then the environment, then a default
below the user's own cache.
"""

from __future__ import annotations

import os
from pathlib import Path


def data_directory(explicit: str | Path | None = None) -> Path:
    """The data directory: `explicit` (--data DIR) if given, else $DUIHUA_HOME, else ~/.cache/duihua. Not created here."""
    if explicit:
        return Path(explicit).expanduser()
    home = os.environ.get("DUIHUA_HOME", "")
    return Path(home).expanduser() if home else Path.home() / ".cache" / "duihua"
