"""The report's words: both languages are complete and ask for the same values."""

from __future__ import annotations

import re
import string
from pathlib import Path

import duihua
from duihua.report.glossary import GLOSSARY
from duihua.report.machine import machine
from duihua.report.page import SECTIONS
from duihua.report.sections.curves import UNITS
from duihua.report.texts import TEXTS, Text


def fields(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}


def has_chinese(text: str) -> bool:
    return any("\u4e00" <= character <= "\u9fff" for character in text)


def complete(text: Text) -> bool:
    return bool(text.en.strip()) and bool(text.zh.strip()) and fields(text.en) == fields(text.zh)


def test_every_text_has_both_languages_with_the_same_values() -> None:
    assert [key for key, text in TEXTS.items() if not complete(text)] == []
    assert not complete(Text("{n} prompts", "{m} 个提示"))  # a translation with another value is seen
    assert not complete(Text("prompts", " "))


def test_chinese_texts_are_chinese_and_english_texts_are_not() -> None:
    # Beside symbols, names and templates without words of their own.
    wordless = {"ppo.kl_short", "check.probe", "stage.named"}
    assert [key for key, text in TEXTS.items() if key not in wordless and not has_chinese(text.zh)] == []
    assert [key for key, text in TEXTS.items() if has_chinese(text.en)] == []


def test_every_section_has_a_title() -> None:
    assert all(f"{name}.title" in TEXTS for name, _ in SECTIONS)


def test_every_figure_that_is_watched_during_training_has_a_title_and_a_unit() -> None:
    stages = Path(duihua.__file__).parent / "stages"
    files = [(stages / f"{name}.py").read_text(encoding="utf-8") for name in ("over_optimisation", "text_meter")]
    names = {name for text in files for name in re.findall(r'"(heldout_\w+)"', text)}
    assert {"heldout_judge", "heldout_gold", "heldout_bits_per_byte"} <= names  # the finder is not blind
    assert [name for name in sorted(names) if f"metric.{name}" not in TEXTS or name not in UNITS] == []


def test_every_part_of_the_machine_has_a_name() -> None:
    assert [part for part in (*machine(), "device", "threads", "seed") if f"machine.{part}" not in TEXTS] == []


def test_glossary_explains_each_word_in_both_languages() -> None:
    for term, meaning in GLOSSARY:
        assert term.en and term.zh and complete(meaning)
        assert has_chinese(meaning.zh)
    terms = [term.en for term, _ in GLOSSARY]
    assert len(set(terms)) == len(terms)
