"""inside.html: complete in itself, true to the model, and deaf to text that tries to be more than text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from duihua.errors import DataError
from duihua.models.bundle import load_bundle
from duihua.report.inside.gallery import PICTURES
from duihua.report.inside.page import render, served_page, write_page
from duihua.report.inside.subject import Subject, look_at
from duihua.text.tokenizer import Tokenizer

HOSTILE = "</script><script>window.hacked=1</script><img src=x>\u2028&"


def data_of(html: str) -> dict[str, Any]:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', html, re.S)
    assert found
    return json.loads(found[1])  # type: ignore[no-any-return]


def page(models: Path, text: str, asks: bool = False) -> str:
    bundle = load_bundle(models / "sft")
    return served_page("sft", bundle.policy, bundle.tokenizer, text, asks)


def test_page_holds_the_models_numbers(models: Path) -> None:
    bundle = load_bundle(models / "sft")
    look = look_at(bundle.policy, bundle.tokenizer, "我爱你")
    data = data_of(page(models, "我爱你"))
    for layer, attention in zip(data["attention"], look.inside.attention, strict=True):
        torch.testing.assert_close(torch.tensor(layer) / 1000, attention.weights()[0], atol=6e-4, rtol=0)
    assert data["tokens"] == look.tokens
    assert len(data["walks"]) == 2
    assert len(data["walks"][0]) == 2
    assert data["walks"][1][1]["steps"]["weights"][0][0] == 1


def test_a_long_text_is_walked_through_on_a_short_one(models: Path) -> None:
    data = data_of(page(models, "I love you, and you love me."))
    assert data["walks"][0][0]["text"] == "我爱你"
    assert len(data["tokens"]) > 8


def test_a_tokenizer_without_chinese_still_has_a_page(models: Path) -> None:
    """There the short sentence is nine bytes, a token each: the longest that it can be."""
    bundle = load_bundle(models / "sft")
    english = Tokenizer.train(["I love you, and you love me."] * 40, 270)
    assert len(english.encode("我爱你")) == 9
    data = data_of(served_page("sft", bundle.policy, english, "you, and me, and you, and me", False))
    assert data["walks"][0][0]["text"] == "我爱你"


def test_hostile_text_stays_text(models: Path) -> None:
    html = page(models, HOSTILE, asks=True)
    assert html.count("</script>") == 3  # data, language switch, page: none of them the text's
    assert "<img" not in html
    assert "&lt;script&gt;window.hacked" in html
    assert "".join(data_of(html)["tokens"]).startswith("</script>")
    assert "\u2028" not in re.sub(r"<bdi>.*?</bdi>|<input[^>]*>", "", html, flags=re.S)


def test_policy_allows_exactly_the_scripts_of_the_page_and_nothing_from_outside(models: Path) -> None:
    html = page(models, "我爱你")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy
    scripts = re.findall(r"<script>(.*?)</script>", html, re.S)
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy[1]
    assert len(scripts) == 2
    assert "default-src 'none'" in policy[1]
    assert "form-action 'none'" in policy[1]
    assert "form-action 'self'" in page(models, "我爱你", asks=True)
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", html)


def test_pictures_stand_in_the_page_in_both_languages(subject: Subject, tmp_path: Path) -> None:
    one = PICTURES["causal-mask"]
    cross = PICTURES["cross-attention"]
    shown = [(picture, picture.data(subject)) for picture in (one, cross)]
    html = write_page(tmp_path / "inside.html", subject, shown).read_text(encoding="utf-8")
    assert len(re.findall(r'<img class="(?:en|zh)" alt="[^"]+" src="data:image/svg\+xml;base64,', html)) == 2
    data = data_of(html)
    assert data["cross"]["target"][-1] == "<end>"
    assert sum(data["cross"]["weights"][0][0][0]) == pytest.approx(1000, abs=40)


def test_a_page_of_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="nothing to show"):
        render("nothing", None)
