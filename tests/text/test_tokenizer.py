from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duihua.errors import BundleError, ConfigError
from duihua.text.chatml import SPECIAL_TOKENS, chatml
from duihua.text.tokenizer import Tokenizer

from_everywhere = st.text(max_size=60)


def test_control_tokens_come_first_and_have_their_roles(tokenizer: Tokenizer) -> None:
    assert [tokenizer.special_tokens[name] for name in SPECIAL_TOKENS] == [0, 1, 2, 3]
    assert (tokenizer.end_of_text_id, tokenizer.im_start_id, tokenizer.im_end_id, tokenizer.pad_id) == (0, 1, 2, 3)
    assert tokenizer.stop_ids == (2, 0)
    assert tokenizer.pad_id not in tokenizer.stop_ids
    assert tokenizer.vocabulary_size == 600


@given(text=from_everywhere)
@settings(max_examples=200)
def test_every_text_decodes_to_itself(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(text=st.lists(st.sampled_from([*SPECIAL_TOKENS, "<|", "|>", "a", "你", "\n", " "]), max_size=12).map("".join))
@settings(max_examples=200)
def test_no_text_gives_a_control_id(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert not tokenizer.special_ids & set(ids)
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode_batch([text, text]) == [ids, ids]


@given(text=from_everywhere)
@settings(max_examples=100)
def test_token_bytes_joined_are_the_text(tokenizer: Tokenizer, text: str) -> None:
    assert b"".join(tokenizer.token_bytes(id) for id in tokenizer.encode(text)) == text.encode("utf-8")


def test_bytes_of_control_tokens_and_of_ids_beyond_the_vocabulary(tokenizer: Tokenizer) -> None:
    assert tokenizer.token_bytes(2) == b"<|im_end|>"
    assert tokenizer.token_bytes(10_000) == b""
    assert tokenizer.decode([10_000]) == ""
    assert tokenizer.decode([2]) == "" and tokenizer.decode([2], skip_special=False) == "<|im_end|>"


def test_nothing_is_normalised(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("e\u0301") != tokenizer.encode("\u00e9")


def test_an_unpaired_surrogate_becomes_the_replacement_character(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("a\ud83d")) == "a\ufffd"
    assert tokenizer.encode_batch(["a\ud83d"]) == [tokenizer.encode("a\ufffd")]


def test_saved_and_loaded_it_is_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.fingerprint == tokenizer.fingerprint
    assert again.chat_template == chatml()
    assert again.stop_ids == tokenizer.stop_ids and again.pad_id == tokenizer.pad_id
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_the_fingerprint_sees_the_chat_template(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("other")
    assert Tokenizer.load(tmp_path).fingerprint != tokenizer.fingerprint


def test_training_is_deterministic_across_processes(tmp_path: Path) -> None:
    program = (
        "from duihua.text.tokenizer import Tokenizer\n"
        "texts = [''.join(chr(0x4e00 + i * i * k % 89) + 'ab'[i * k % 7 % 2] for i in range(60)) for k in range(40)]\n"
        "print(Tokenizer.train(texts, 420).fingerprint)"
    )
    prints = {
        subprocess.run(
            [sys.executable, "-c", program],
            check=True,
            capture_output=True,
            text=True,
            env=os.environ | {"RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads},
        ).stdout
        for threads in ("1", "2", "3")
    }
    assert len(prints) == 1


def test_a_vocabulary_larger_than_the_data_allows_names_the_reachable_size() -> None:
    with pytest.raises(ConfigError) as caught:
        Tokenizer.train(["ab ab ab"], 5000)
    assert "allows a vocabulary of 262" in str(caught.value)  # 256 bytes, 4 control tokens, "ab" and " ab"
    assert Tokenizer.train(["ab ab ab"], 262).vocabulary_size == 262


def test_a_vocabulary_too_small_for_the_bytes_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 260"):
        Tokenizer.train(["ab"], 259)


def test_a_directory_without_tokenizer_raises_at_first_use_only(tmp_path: Path) -> None:
    absent = Tokenizer.load(tmp_path)
    for use in (
        lambda: absent.encode("a"),
        lambda: absent.decode([1]),
        lambda: absent.stop_ids,
        lambda: absent.pad_id,
        lambda: absent.fingerprint,
        lambda: absent.save(tmp_path / "other"),
    ):
        with pytest.raises(BundleError, match=r"no tokenizer\.json"):
            use()


def test_a_broken_tokenizer_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(BundleError, match=r"tokenizer\.json: broken tokenizer"):
        Tokenizer.load(tmp_path)


def test_a_tokenizer_that_is_not_byte_level_is_refused_at_its_first_use(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Backend
    from tokenizers import models

    Backend(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]")).save(str(tmp_path / "tokenizer.json"))
    loaded = Tokenizer.load(tmp_path)
    with pytest.raises(BundleError, match="not byte-level"):
        loaded.encode("a")


def test_stop_ids_of_a_foreign_directory_come_from_generation_config(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [300, 2]}))
    assert Tokenizer.load(tmp_path).stop_ids == (2, 0, 300)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": 301}))
    assert Tokenizer.load(tmp_path).stop_ids == (2, 0, 301)


def test_the_chat_template_inside_the_config_is_found(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]
    for written, expected in (("one", "one"), (named, "yes"), (None, None)):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": written}))
        assert Tokenizer.load(tmp_path).chat_template == expected
