"""GPT-1 (Radford et al. 2018), which transformers calls openai-gpt.

Its config says `afn: gelu` and means the tanh form: the word is looked up in a table of its own there. The feed-forward
layer always has four times the width.
"""

from __future__ import annotations

from typing import Any

from duihua.models.config import Activation, DecoderConfig
from duihua.models.interop import gpt2
from duihua.models.interop.family import ConfigReader, Family, TensorPlace

_ACTIVATIONS: dict[str, Activation] = {"gelu": "gelu_tanh", "relu": "relu", "swish": "silu", "silu": "silu"}


def _write(config: DecoderConfig) -> dict[str, Any]:
    return gpt2.write_common(config) | {"afn": {ours: word for word, ours in _ACTIVATIONS.items()}[config.activation]}


def _read(reader: ConfigReader) -> dict[str, Any]:
    return gpt2.read_common(reader) | {
        "norm_place": "post",
        "final_norm": False,
        "activation": reader.one_of("afn", _ACTIVATIONS, "gelu", "another activation"),
        "initialisation": "normal",
    }


def _layout(config: DecoderConfig) -> list[TensorPlace]:
    tensors = [
        TensorPlace("transformer.tokens_embed.weight", ("embedding.weight",)),
        TensorPlace("transformer.positions_embed.weight", ("position_embedding.weight",)),
    ]
    for layer in range(config.layers):
        tensors += gpt2.block_layout(layer)
    return tensors


def _further_limits(config: DecoderConfig) -> list[str]:
    found = gpt2.further_limits(config)
    if config.feed_forward_width != 4 * config.width:
        found.append(f"feed_forward_width {config.feed_forward_width} is not four times the width {config.width}")
    return found


OPENAI_GPT = Family(
    name="openai-gpt",
    title="GPT-1",
    architectures={"policy": "OpenAIGPTLMHeadModel", "reward": "OpenAIGPTForSequenceClassification"},
    base_architecture="OpenAIGPTModel",
    prefix="transformer.",
    passed_over=gpt2.GPT2.passed_over,
    limits=gpt2.COMMON_LIMITS
    | {
        "norm_place": ("post",),
        "final_norm": (False,),
        "activation": ("gelu_tanh", "relu", "silu"),
    },
    further_limits=_further_limits,
    write=_write,
    read=_read,
    layout=_layout,
)
