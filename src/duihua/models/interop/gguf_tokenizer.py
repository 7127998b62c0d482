"""Our tokenizer in GGUF's words: a list of tokens with their kinds, the merges, ids with a role, and the pattern's name.

GGUF does not carry the pattern by which text is cut before merging; it names one that llama.cpp has built in. A
tokenizer with any other pattern is refused, because the exported model would read other tokens than it was trained on,
without any error. llama.cpp normalises nothing: a tokenizer with a normaliser (Qwen3's composes accents, NFC) is
exported, as everyone does it, and the difference is stated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from duihua.errors import BundleError
from duihua.text.bpe_training import PATTERN
from duihua.text.chat_template import ChatTemplate
from duihua.text.chatml import END_OF_TEXT, IM_END
from duihua.text.tokenizer import Tokenizer

# Llama 3's pattern: Qwen2's, but numbers are cut into groups of three digits.
LLAMA3_PATTERN = PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""GGUF's kinds of tokens (llama.cpp, enum llama_token_type)."""


@dataclass(frozen=True)
class TokenizerFacts:
    """What is written under `tokenizer.`. kinds: one of the constants above a token. notes: what differs over there."""

    pre: str
    tokens: list[str]
    kinds: list[int]
    merges: list[str]
    end_id: int
    end_of_turn_id: int
    begin_id: int
    pad_id: int
    chat_template: str | None
    notes: list[str]


def tokenizer_facts(tokenizer: Tokenizer, rows: int) -> TokenizerFacts:
    """The facts of `tokenizer` for an embedding of `rows` rows; those without a token are marked as unused.

    Raises BundleError for a tokenizer that llama.cpp could not follow.
    """
    specification = tokenizer.specification()
    model = specification["model"]
    pre = _pre_tokenizer(specification)
    unknown = [key for key in ("byte_fallback", "continuing_subword_prefix", "end_of_word_suffix") if model.get(key)]
    if model.get("type") != "BPE" or unknown:
        raise _refused(f"a {model.get('type')} model with {', '.join(unknown) or 'other rules'}")
    tokens = [f"[PAD{id}]" for id in range(rows)]
    kinds = [UNUSED] * rows
    for token, id in model["vocab"].items():
        tokens[id], kinds[id] = token, NORMAL
    for added in specification["added_tokens"]:
        tokens[added["id"]] = added["content"]
        kinds[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    notes = []
    if specification.get("normalizer"):
        notes.append(
            f"llama.cpp does not apply the tokenizer's normaliser ({specification['normalizer'].get('type')}): "
            "text with decomposed accents gives other tokens there"
        )
    try:
        template: str | None = ChatTemplate(tokenizer).source
    except BundleError:
        template = None
        notes.append("there is no chat template: llama.cpp would use its own default in a chat")
    if template is not None and "enable_thinking" in template:
        notes.append("the chat template thinks aloud unless it is called with enable_thinking=false, as duihua does")
    names = tokenizer.special_tokens
    end = names.get(tokenizer.token_name("eos_token") or "", tokenizer.im_end_id)
    begin = names.get(tokenizer.token_name("bos_token") or "", names.get(END_OF_TEXT, end))
    return TokenizerFacts(
        pre=pre,
        tokens=tokens,
        kinds=kinds,
        merges=[merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]],
        end_id=end,
        end_of_turn_id=names.get(IM_END, end),
        begin_id=begin,
        pad_id=tokenizer.pad_id,
        chat_template=template,
        notes=notes,
    )


def _pre_tokenizer(specification: dict[str, Any]) -> str:
    """llama.cpp's name for the way in which text is cut."""
    outer = specification.get("pre_tokenizer") or {}
    parts = outer.get("pretokenizers", [outer])
    levels = [part for part in parts if part.get("type") == "ByteLevel"]
    splits = [part for part in parts if part.get("type") == "Split"]
    plain = not any(part.get("add_prefix_space") for part in levels)
    ignore_merges = bool(specification["model"].get("ignore_merges"))
    if plain and len(levels) == len(parts) == 1 and levels[0].get("use_regex", True) and not ignore_merges:
        return "gpt-2"
    if plain and len(levels) == len(splits) == 1 and len(parts) == 2 and not levels[0].get("use_regex", True):
        pattern = splits[0].get("pattern", {}).get("Regex")
        isolated = splits[0].get("behavior") == "Isolated" and not splits[0].get("invert")
        known = {(PATTERN, False): "qwen2", (LLAMA3_PATTERN, True): "llama-bpe"}
        if isolated and (pattern, ignore_merges) in known:
            return known[pattern, ignore_merges]
    raise _refused("a way of cutting text before merging")


def _refused(what: str) -> BundleError:
    return BundleError(
        f"its tokenizer has {what} that llama.cpp has no name for",
        where="tokenizer.json",
        remedy="Export it with --to huggingface; tokenizers made by duihua, GPT-2's, Llama 3's and Qwen's can go to GGUF",
    )
