"""What a finished run says of itself: summary.json for a program, report.html for a person, metrics.jsonl for both."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest

from duihua.version import __version__

KEYS = {
    "minutes",
    "peak_memory_gib",
    "tokenizer.characters_per_token.en",
    "tokenizer.characters_per_token.zh",
    "pretrain.bits_per_byte.all",
    "pretrain.bits_per_byte.en",
    "pretrain.bits_per_byte.zh",
    "pretrain.tokens_per_second",
    "reward.accuracy.value",
    "reward.accuracy.low",
    "reward.accuracy.high",
    "ppo.reward_gain.value",
    "ppo.reward_gain.standard_error",
    "ppo.kl_nats",
    "repetition_rate.base",
    "repetition_rate.sft",
    "repetition_rate.ppo",
    "repetition_change.value",
    "repetition_change.standard_error",
    "bleu.value",
    "bleu.signature",
    "command",
}
TRAINED = ("pretrain", "sft", "reward", "ppo")


def flat(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`a.b` and its value, of nested mappings."""
    for key, item in value.items():
        if isinstance(item, dict):
            yield from flat(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


@pytest.fixture(scope="module")
def summary(tiny_run: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tiny_run.directory / "summary.json").read_bytes())
    return found


@pytest.fixture(scope="module")
def page(tiny_run: Any) -> str:
    text: str = (tiny_run.directory / "report.html").read_text(encoding="utf-8")
    return text


def test_the_summary_has_the_promised_keys_and_no_others(summary: dict[str, Any]) -> None:
    versions = summary["versions"]
    assert {"duihua", "python", "torch"} <= versions.keys()
    assert versions["duihua"] == __version__
    assert {key for key, _ in flat({k: v for k, v in summary.items() if k != "versions"})} == KEYS


def test_the_summary_holds_what_such_a_run_can_give(summary: dict[str, Any]) -> None:
    values = dict(flat(summary))
    numbers = {key: value for key, value in values.items() if isinstance(value, int | float)}
    assert numbers.keys() == KEYS - {"bleu.signature", "command"}  # none is null
    assert 0 < values["minutes"] < 60
    assert 0.1 < values["peak_memory_gib"] < 4
    assert 1 < values["tokenizer.characters_per_token.zh"] < values["tokenizer.characters_per_token.en"] < 10
    for part in ("all", "en", "zh"):
        assert 0 < values[f"pretrain.bits_per_byte.{part}"] < 8  # eight would be no knowledge at all
    low, high = sorted((values["pretrain.bits_per_byte.en"], values["pretrain.bits_per_byte.zh"]))
    assert low <= values["pretrain.bits_per_byte.all"] <= high
    assert values["pretrain.tokens_per_second"] > 0
    low, accuracy, high = (values[f"reward.accuracy.{name}"] for name in ("low", "value", "high"))
    assert 0 <= low < accuracy < high <= 1
    assert values["ppo.reward_gain.standard_error"] > 0
    assert -1 < values["ppo.kl_nats"] < 10
    assert all(0 <= values[f"repetition_rate.{name}"] <= 1 for name in ("base", "sft", "ppo"))
    change = values["repetition_rate.ppo"] - values["repetition_rate.sft"]
    assert values["repetition_change.value"] == pytest.approx(change, abs=1e-12)
    assert values["repetition_change.standard_error"] >= 0
    assert 0 <= values["bleu.value"] <= 100
    assert "version:" in values["bleu.signature"]
    assert values["command"].startswith("duihua run ")
    assert values["command"].endswith("tiny.yaml --set threads=1 --output tiny")


def test_the_summary_is_what_the_stages_measured(tiny_run: Any, summary: dict[str, Any]) -> None:
    assert summary["ppo"]["kl_nats"] == tiny_run.metrics("ppo")["kl_nats"]
    assert summary["pretrain"]["bits_per_byte"]["zh"] == tiny_run.metrics("pretrain")["bits_per_byte"]["zh"]
    run = json.loads((tiny_run.directory / "run.json").read_bytes())
    assert summary["minutes"] == run["minutes"]
    assert [stage["status"] for stage in run["stages"]] == ["finished"] * 6
    assert run["minutes"] * 60 >= sum(stage["seconds"] for stage in run["stages"]) > 0


def test_under_json_the_command_prints_the_summary(tiny_run: Any, summary: dict[str, Any]) -> None:
    again = tiny_run.road.run([*tiny_run.road.recipe("tiny"), "--json"])
    assert again.code == 0, again.err
    said = json.loads(again.out)
    assert said["complete"]
    assert dict(flat(said["summary"])).keys() == dict(flat(summary)).keys()
    assert said["summary"]["ppo"] == summary["ppo"]


EVALUATED = {"heldout_loss", "train_loss"}
"""What a line holds that an evaluation between two steps wrote: figures of held-out or of training records."""


@pytest.mark.parametrize("stage", TRAINED)
def test_the_steps_of_a_stage_grow_line_by_line(tiny_run: Any, stage: str) -> None:
    text = (tiny_run.directory / stage / "metrics.jsonl").read_text(encoding="utf-8")
    written = [json.loads(line) for line in text.splitlines()]
    lines = [line for line in written if "loss" in line]
    assert all(EVALUATED & {key.split("/")[0] for key in line} for line in written if "loss" not in line)
    steps = [line["step"] for line in lines]
    assert len(steps) > 2
    assert all(later > earlier for earlier, later in pairwise(steps)), steps
    assert all(later["tokens"] > earlier["tokens"] for earlier, later in pairwise(lines))
    assert all("learning_rate" in line for line in lines)


def test_the_losses_of_the_tiny_recipe_fall(tiny_run: Any) -> None:
    """Control of the plausible values: something was learnt, they are not those of random weights."""
    for stage in ("pretrain", "sft"):
        text = (tiny_run.directory / stage / "metrics.jsonl").read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines()]
        losses = [line["loss"] for line in lines if "loss" in line]
        assert losses[-1] < losses[0] / 2, stage


LOADING = {"src", "srcset", "data", "poster", "background", "action", "formaction", "manifest", "xlink:href"}


class Page(HTMLParser):
    """The elements of a page that make a browser load something, and the languages that texts are marked with."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.languages: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == "lang" and value:
                self.languages.add(value)
            if name in LOADING or (name == "href" and tag in ("link", "base", "image", "use")):
                self.loaded.append(value or "")

    @property
    def outside(self) -> list[str]:
        """Addresses that are not inside the file itself."""
        return [address for address in self.loaded if not address.startswith(("data:", "#"))]


def test_the_report_is_in_both_languages(page: str) -> None:
    assert {"en", "zh"} <= {language.split("-")[0] for language in Page(page).languages}
    for words in ("Is my loss normal?", "我的损失正常吗？", "tiny-chat", "CC0-1.0"):
        assert words in page, words


def test_the_report_shows_every_stage_and_the_numbers_of_the_summary(page: str, summary: dict[str, Any]) -> None:
    assert page.count("<svg") >= 4  # a curve for each stage that trains
    assert f"{summary['pretrain']['bits_per_byte']['all']:.3g}" in page
    assert summary["bleu"]["signature"] in page
    assert summary["versions"]["torch"] in page
    assert "tiny.yaml --set threads=1 --output tiny" in page


def test_the_report_loads_nothing_from_outside(page: str) -> None:
    assert Page(page).outside == []
    styles = "".join(re.findall(r"<style[^>]*>(.*?)</style>", page, re.DOTALL))
    assert not re.findall(r"@import|url\(\s*['\"]?(?!data:|#)", styles)
    scripts = "".join(re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL))
    assert not re.findall(r"\bfetch\(|XMLHttpRequest|\bimport\(|WebSocket|sendBeacon", scripts)
    for spoilt in ('<img src="https://example.org/x.png">', '<link rel="stylesheet" href="//example.org/x.css">'):
        assert Page(page.replace("</body>", f"{spoilt}</body>")).outside  # control: it would be seen
