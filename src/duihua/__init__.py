"""Duihua (对话): train, align, evaluate and talk to your own ChatGPT, in English and Chinese.

>>> import duihua
>>> model = duihua.load("runs/quickstart/ppo")
>>> for piece in model.chat([{"role": "user", "content": "你好"}], stream=True):
...     print(piece, end="", flush=True)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from duihua.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from duihua.engine.chat_model import ChatModel

__all__ = ["__version__", "load"]


def load(path: str | Path, device: str = "cpu") -> ChatModel:
    """Open a bundle of ours or a Hugging Face model directory (GPT-1, GPT-2, Llama, Qwen3) for chat, generation and inspection.

    Returns a ChatModel with `.tokenizer`, `.config`, `.network` (the torch module: `network(token_ids)` gives logits of
    shape (batch, time, vocabulary)), `.chat(...)` and `.generate(...)`. Raises BundleError when the directory is not one.
    """
    from duihua.engine.chat_model import ChatModel

    return ChatModel.load(path, device=device)
