"""Our GGUF files run by llama.cpp, which we did not write: the same text, the same numbers, the same tokens.

Log-probabilities are compared, because llama.cpp's server gives those: logits up to one number a place, which changes no
text. llama.cpp keeps keys and values in f16 unless told otherwise; here in f32, so that the bound can be strict.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import duihua.models.interop.gguf as module
from duihua.models.bundle import Bundle, load_bundle, save_bundle
from duihua.models.config import DecoderConfig, RopeScaling
from duihua.models.decoder import Decoder
from duihua.models.model_card import ModelCard
from duihua.text.chat_template import ChatTemplate, Message
from duihua.text.tokenizer import Tokenizer
from duihua.text.tools import reply_text

pytest.importorskip("gguf")

Ask = Callable[[dict[str, Any]], dict[str, Any]]

SENTENCES = (
    "The quick brown fox jumps over the lazy dog, and the dog doesn't mind at all in 1998.",
    "今天天气很好，我们一起去公园散步吧。你觉得怎么样？",
)
TEXTS = [
    *SENTENCES,
    "don't DON'T we'll'll 12345 ½ ٣",
    "  two  spaces \n\n\t lines \r\n end ",
    "你好，世界！ 中华人民共和国 。ﬁ e\u0301",
    "😀👨‍👩‍👧 \ufeff\u200b\u3000 end",
    "hi<|im_end|>\n<|im_start|>system",
]
CONVERSATIONS: list[list[Message]] = [
    [{"role": "user", "content": " 你好 \n"}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello 😀"},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "1 + 1?"},
    ],
    [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": reply_text("", "", [("weather", '{"city": "北京"}')])},
        {"role": "tool", "content": '{"celsius": 21}'},
    ],
]
PROMPT, TOKENS = [301, 302, 303, 40, 41, 299], 64
BOUND = 1e-4
BOUND_GELU = 1e-2  # llama.cpp looks GELU up in a table of f16 numbers, between -10 and 10

COMMON: dict[str, Any] = {
    "vocabulary_size": 384,  # more rows than the tokenizer has ids, as real models have
    "width": 64,
    "layers": 3,
    "heads": 4,
    "head_width": 16,
    "feed_forward_width": 96,
    "context": 128,
}
LLAMA: dict[str, Any] = {**COMMON, "key_value_heads": 2, "query_key_norm": "none", "norm_epsilon": 1e-5}
GPT2 = DecoderConfig(
    **COMMON,
    key_value_heads=4,
    positions="learned",
    norm="layer",
    norm_epsilon=1e-5,
    query_key_norm="none",
    activation="gelu_tanh",
    gated=False,
    attention_bias=True,
    feed_forward_bias=True,
    tied_embeddings=True,
)
SHAPES: dict[str, DecoderConfig] = {
    "qwen3": DecoderConfig(**COMMON | {"head_width": 32}, key_value_heads=2, rope_theta=50_000.0),
    "llama": DecoderConfig(**LLAMA, rope_theta=20_000.0, tied_embeddings=True),
    "llama3 scaling": DecoderConfig(**LLAMA, rope_theta=500.0, rope_scaling=RopeScaling("llama3", 8.0, 32, 1.0, 4.0)),
    "linear scaling": DecoderConfig(**LLAMA, rope_scaling=RopeScaling("linear", 4.0)),
    "yarn scaling": DecoderConfig(**COMMON, key_value_heads=2, rope_scaling=RopeScaling("yarn", 4.0, 32)),
    "gpt2": GPT2,
    "gpt2 with units above 10": GPT2,  # where GELU is the identity, there and here: all but the table is compared
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([sentence for sentence in SENTENCES for _ in range(4)], 360)


@pytest.fixture(scope="module")
def bundles(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bundle]:
    """A bundle of each shape with random weights (norms and biases too) and logits with a deviation of about 5."""
    folder = tmp_path_factory.mktemp("shapes")

    def make(name: str) -> Bundle:
        directory = folder / name.replace(" ", "-")
        if not directory.exists():
            network = Decoder(SHAPES[name])
            generator = torch.Generator().manual_seed(5 if name.startswith("gpt2") else 1)
            with torch.no_grad():
                for parameter, weight in network.named_parameters():
                    noise = torch.randn(weight.shape, generator=generator)
                    if parameter.endswith("bias"):
                        weight.copy_(0.1 * noise + (20 if "above" in name and ".up." in parameter else 0))
                    elif weight.ndim == 1:
                        weight.copy_(1 + 0.3 * noise)
                    else:
                        weight.copy_(noise * (0.2 if "embed" in parameter else 1.2 * weight.shape[1] ** -0.5))
                scale = 5 / float(network.eval()(torch.arange(80)[None]).std())
                final = dict(network.named_parameters())["final_norm.weight"]
                final.mul_(scale)
            save_bundle(directory, network, tokenizer, ModelCard(title=name, stage="sft"))
        return load_bundle(directory)

    return make


def logprobs_of(bundle: Bundle, ids: list[int]) -> Tensor:
    """(t, v): of the token after each place."""
    with torch.no_grad():
        return torch.log_softmax(bundle.policy(torch.tensor([ids]))[0].double(), dim=-1)


def banned(bundle: Bundle) -> list[int]:
    """Ids that end a text or are no whole characters: llama.cpp's server gives no numbers for places inside a character."""
    pieces = [bundle.tokenizer.token_bytes(id) for id in range(bundle.config.vocabulary_size)]
    whole = {id for id, piece in enumerate(pieces) if piece and "\ufffd" not in piece.decode("utf-8", "replace")}
    return [id for id in range(len(pieces)) if id not in whole or id in bundle.tokenizer.special_ids]


def greedy(bundle: Bundle) -> list[int]:
    ids, never = list(PROMPT), banned(bundle)
    for _ in range(TOKENS):
        scores = logprobs_of(bundle, ids)[-1]
        scores[never] = -torch.inf
        ids.append(int(scores.argmax()))
    return ids[len(PROMPT) :]


def differences(bundle: Bundle, answer: dict[str, Any]) -> Tensor:
    """Between their log-probabilities and ours, (places, ids), on the text that they wrote."""
    ours = logprobs_of(bundle, PROMPT + answer["ids"])[len(PROMPT) - 1 : -1]
    theirs = torch.full_like(ours, torch.nan)
    assert len(answer["logprobs"]) == len(answer["ids"]) == TOKENS
    for place, pairs in enumerate(answer["logprobs"]):
        ids, values = zip(*pairs, strict=True)
        theirs[place, list(ids)] = torch.tensor(values, dtype=torch.float64)
    return (ours - theirs).abs()


def question(bundle: Bundle, file: Path, **more: Any) -> dict[str, Any]:
    asked = {"model": str(file), "prompt": PROMPT, "tokens": TOKENS, "vocabulary": bundle.config.vocabulary_size}
    return asked | {"banned": banned(bundle), **more}


@pytest.mark.parametrize("shape", SHAPES)
def test_llama_cpp_writes_the_same_64_tokens_with_the_same_log_probabilities(
    bundles: Callable[[str], Bundle], llama_cpp: Ask, tmp_path: Path, shape: str
) -> None:
    bundle = bundles(shape)
    module.export_gguf(bundle, tmp_path / "model.gguf", "f32")
    answer = llama_cpp(question(bundle, tmp_path / "model.gguf"))
    assert answer["ids"] == greedy(bundle)
    assert len(set(answer["ids"])) >= 10 or "above" in shape
    assert differences(bundle, answer).max() < (BOUND_GELU if shape == "gpt2" else BOUND)


def test_the_same_check_rejects_a_llama_whose_query_and_key_rows_were_left_as_halves(
    bundles: Callable[[str], Bundle], llama_cpp: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = bundles("llama")
    monkeypatch.setattr(module, "pairs_from_halves", lambda weight, heads: weight)
    module.export_gguf(bundle, tmp_path / "model.gguf", "f32")
    answer = llama_cpp(question(bundle, tmp_path / "model.gguf"))
    assert answer["ids"] != greedy(bundle)
    assert differences(bundle, answer).max() > 0.5


@pytest.mark.parametrize("shape", ["qwen3", "gpt2"])
def test_the_smaller_forms_stay_within_what_is_stated(
    bundles: Callable[[str], Bundle], llama_cpp: Ask, tmp_path: Path, shape: str
) -> None:
    """Mean difference of log-probabilities where logits have a deviation of 5, with llama.cpp's own defaults (an f16 cache,
    flash attention); docs/models.md states these bounds. f32 stands beside them as what the defaults alone cost."""
    bundle = bundles(shape)
    mean = {}
    for form in ("f32", "f16", "bf16", "q8_0"):
        module.export_gguf(bundle, tmp_path / f"{form}.gguf", form)
        answer = llama_cpp(question(bundle, tmp_path / f"{form}.gguf", exact=False))
        mean[form] = float(differences(bundle, answer).mean())
    assert mean["f32"] < 0.02 and mean["f16"] < 0.02 and mean["bf16"] < 0.1 and mean["q8_0"] < 0.2, mean
    assert BOUND < mean["f16"] < mean["bf16"] < mean["q8_0"]


def test_llama_cpp_cuts_text_and_renders_conversations_as_we_do(
    bundles: Callable[[str], Bundle], llama_cpp: Ask, tmp_path: Path
) -> None:
    bundle = bundles("qwen3")
    module.export_gguf(bundle, tmp_path / "model.gguf", "q8_0")
    asked = {"model": str(tmp_path / "model.gguf"), "texts": TEXTS, "conversations": CONVERSATIONS}
    answer = llama_cpp(asked)
    assert answer["tokens"] == [bundle.tokenizer.encode(text) for text in TEXTS]
    template = ChatTemplate(bundle.tokenizer)
    assert answer["rendered"] == [template.render(messages, True) for messages in CONVERSATIONS]


def test_llama_cpp_writes_calls_and_reasoning_of_their_own_fields_as_we_do(
    bundles: Callable[[str], Bundle], llama_cpp: Ask, tmp_path: Path
) -> None:
    bundle = bundles("qwen3")
    module.export_gguf(bundle, tmp_path / "model.gguf", "q8_0")
    calls = [
        {"id": str(n), "type": "function", "function": {"name": name, "arguments": '{"city": "北京"}'}}
        for n, name in enumerate(("weather", "clock"))
    ]
    question: Message = {"role": "user", "content": "Weather?"}
    in_fields = {"role": "assistant", "content": "Let me see.", "tool_calls": calls, "reasoning_content": "Ask."}
    answers: list[Message] = [{"role": "tool", "content": "21"}, {"role": "tool", "content": "noon"}]
    answer = llama_cpp({"model": str(tmp_path / "model.gguf"), "conversations": [[question, in_fields, *answers]]})

    def ours(reasoning: str) -> str:
        named = [(call["function"]["name"], call["function"]["arguments"]) for call in calls]
        as_text: Message = {"role": "assistant", "content": reply_text("Let me see.", reasoning, named)}
        return ChatTemplate(bundle.tokenizer).render([question, as_text, *answers], True)

    assert answer["rendered"] == [ours("Ask.")]
    assert answer["rendered"] != [ours("")]  # control: a thought that is lost is seen


def test_the_same_check_rejects_another_pattern(
    bundles: Callable[[str], Bundle], llama_cpp: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import duihua.models.interop.gguf_tokenizer as tokenizer_module

    bundle = bundles("qwen3")
    monkeypatch.setattr(tokenizer_module, "_pre_tokenizer", lambda specification: "gpt-2")
    module.export_gguf(bundle, tmp_path / "model.gguf", "q8_0")
    answer = llama_cpp({"model": str(tmp_path / "model.gguf"), "texts": TEXTS})
    assert answer["tokens"] != [bundle.tokenizer.encode(text) for text in TEXTS]


def test_llama_cpp_reads_qwen3s_real_tokenizer_and_template(
    qwen3_tokenizer: Path, llama_cpp: Ask, tmp_path: Path
) -> None:
    tokenizer = Tokenizer.load(qwen3_tokenizer)
    network = Decoder(
        DecoderConfig(vocabulary_size=151_936, width=32, layers=1, heads=2, key_value_heads=1, head_width=16)
    )
    save_bundle(tmp_path / "bundle", network.initialise(1), tokenizer, ModelCard(title="A", stage="sft"))
    written = module.export_gguf(load_bundle(tmp_path / "bundle"), tmp_path / "model.gguf", "q8_0")
    assert any("NFC" in note for note in written.notes)
    composed = [text for text in TEXTS if "\u0301" not in text]  # llama.cpp does not normalise, as the note says
    asked = {"model": str(tmp_path / "model.gguf"), "texts": [*composed, "<think>\n\n</think>"]}
    asked |= {"conversations": CONVERSATIONS, "template_arguments": {"enable_thinking": False}}
    answer = llama_cpp(asked)
    assert answer["tokens"] == [tokenizer.encode(text) for text in asked["texts"]]
    template = ChatTemplate(tokenizer)
    assert answer["rendered"] == [template.render(messages, True) for messages in CONVERSATIONS]
