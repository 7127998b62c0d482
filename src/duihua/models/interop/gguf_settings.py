"""The head of a GGUF file: everything that is no tensor, each fact under the key by which llama.cpp asks for it.

A key that is missing or wrong does not always stop llama.cpp: it takes a default and talks nonsense. So every fact that its
loaders of the three families read is written, defaults too (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from duihua.models.bundle import Bundle
from duihua.models.config import DecoderConfig
from duihua.models.interop.gguf_tokenizer import TokenizerFacts

if TYPE_CHECKING:
    import gguf


def write_settings(writer: gguf.GGUFWriter, library: Any, bundle: Bundle, family: str, form: str, name: str) -> None:
    """The shape of `bundle`, its terms, and in which number format its matrices are."""
    config = bundle.config
    kinds = library.LlamaFileType
    forms = {
        "f32": kinds.ALL_F32,
        "f16": kinds.MOSTLY_F16,
        "bf16": kinds.MOSTLY_BF16,
        "q8_0": kinds.MOSTLY_Q8_0,
    }
    writer.add_type("model")
    writer.add_name(name)
    writer.add_file_type(int(forms[form]))
    writer.add_quantization_version(library.GGML_QUANT_VERSION)
    writer.add_vocab_size(config.vocabulary_size)
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.width)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.feed_forward_width)
    writer.add_head_count(config.heads)
    if family == "gpt2":
        writer.add_layer_norm_eps(config.norm_epsilon)
    else:
        writer.add_head_count_kv(config.key_value_heads)
        writer.add_key_length(config.head_width)
        writer.add_value_length(config.head_width)
        writer.add_layer_norm_rms_eps(config.norm_epsilon)
        writer.add_rope_freq_base(config.rope_theta)
        writer.add_rope_dimension_count(config.head_width)
        _write_rope_scaling(writer, library, config)
    _write_terms(writer, bundle)


def _write_rope_scaling(writer: gguf.GGUFWriter, library: Any, config: DecoderConfig) -> None:
    scaling = config.rope_scaling
    if scaling is None or scaling.kind == "llama3":  # llama3's stands in a tensor
        return
    writer.add_rope_scaling_type(getattr(library.RopeScalingType, scaling.kind.upper()))
    writer.add_rope_scaling_factor(scaling.factor)
    if scaling.kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(scaling.original_context or config.context)
        writer.add_rope_scaling_yarn_beta_fast(scaling.beta_fast)
        writer.add_rope_scaling_yarn_beta_slow(scaling.beta_slow)


def _write_terms(writer: gguf.GGUFWriter, bundle: Bundle) -> None:
    """Whose data the model is made from: the licences under GGUF's own key, the whole list as JSON under ours."""
    licences = sorted({terms["licence"] for terms in bundle.terms if terms.get("licence")})
    if licences:
        writer.add_license("; ".join(licences))
    if bundle.terms:
        writer.add_string("duihua.terms", json.dumps(bundle.terms, ensure_ascii=False))
    languages = sorted({part for terms in bundle.terms for part in terms.get("language", "").split(",") if part})
    if languages:
        writer.add_languages(languages)


def write_tokenizer(writer: gguf.GGUFWriter, facts: TokenizerFacts) -> None:
    """Tokens, merges, control ids and chat template."""
    writer.add_tokenizer_model("gpt2")  # byte-level BPE
    writer.add_tokenizer_pre(facts.pre)
    writer.add_token_list(facts.tokens)
    writer.add_token_types(facts.kinds)
    writer.add_token_merges(facts.merges)
    writer.add_bos_token_id(facts.begin_id)
    writer.add_eos_token_id(facts.end_id)
    writer.add_eot_token_id(facts.end_of_turn_id)
    writer.add_pad_token_id(facts.pad_id)
    writer.add_add_bos_token(False)
    if facts.chat_template is not None:
        writer.add_chat_template(facts.chat_template)
