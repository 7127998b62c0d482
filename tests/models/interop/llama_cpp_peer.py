"""llama.cpp as a peer, run by another Python that has xllamacpp and nothing of ours: `llama_cpp_peer.py QUESTION ANSWER`.

QUESTION (JSON): model, a GGUF file; texts, to be tokenized; conversations, to be rendered by the model's chat template
(template_arguments: for it); prompt, token ids to be continued greedily by `tokens` tokens, with the log-probabilities of
all `vocabulary` ids at each place, `banned` ids never taken. ANSWER: tokens (a list a text), rendered, ids, logprobs (a
list of [id, log-probability] a place). Keys and values are kept in f32 and attention is computed in f32, unless `exact`
is false.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

import xllamacpp


def main(question: Path, answer: Path) -> None:
    wanted = json.loads(question.read_text(encoding="utf-8"))
    server = start(wanted)

    def post(path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            server.listening_address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    found: dict[str, Any] = {
        "tokens": [
            post("/tokenize", {"content": text, "add_special": True, "parse_special": False})["tokens"]
            for text in wanted.get("texts", [])
        ],
        "rendered": [
            post(
                "/apply-template",
                {"messages": messages, "chat_template_kwargs": wanted.get("template_arguments", {})},
            )["prompt"]
            for messages in wanted.get("conversations", [])
        ],
    }
    if wanted.get("prompt"):
        made = post(
            "/completion",
            {
                "prompt": wanted["prompt"],
                "n_predict": wanted["tokens"],
                "n_probs": wanted["vocabulary"],
                "logit_bias": [[id, False] for id in wanted["banned"]],
                "temperature": 0,
                "return_tokens": True,
                "cache_prompt": False,
            },
        )
        found["ids"] = made["tokens"]
        found["logprobs"] = [
            [[each["id"], each["logprob"]] for each in place["top_logprobs"]]
            for place in made["completion_probabilities"]
        ]
    answer.write_text(json.dumps(found), encoding="utf-8")


def start(wanted: dict[str, Any]) -> xllamacpp.Server:
    """A server on a free port of this machine."""
    settings = xllamacpp.CommonParams()
    settings.model.path = wanted["model"]
    settings.n_ctx = wanted.get("context", 128)
    settings.n_parallel = 1
    settings.cpuparams.n_threads = 1
    settings.warmup = False
    settings.use_jinja = True
    if wanted.get("exact", True):
        settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return xllamacpp.Server(settings)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
