"""Fine-tuning, source by source, on the report's page: every figure beside its source, and what is missing is said."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

from duihua.report.page import render
from duihua.report.run_record import read_run
from duihua.report.sections.curves import companion, curves, metric_names
from duihua.report.sections.fine_tuning import sft

build_fake_run = runpy.run_path(str(Path(__file__).with_name("fake_run.py")))["build_fake_run"]


def changed(run: Path, change: Any) -> Path:
    path = run / "sft" / "result.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    change(stored["metrics"])
    path.write_text(json.dumps(stored), encoding="utf-8")
    return run


def english(html: str) -> str:
    """The words without tags, the Chinese ones taken out."""
    return re.sub(r"<[^>]+>", " ", re.sub(r'<span class="zh".*?</span>|</?bdi.*?>', "", html))


def test_both_parts_of_a_source_stand_under_its_name_with_the_gap(tmp_path: Path) -> None:
    html = str(sft(read_run(build_fake_run(tmp_path, stages=("sft",)))))
    text = english(html)
    assert "small-talk: seen 12.4 times, gap +1.84 [+1.52, +2.17] nats per token" in " ".join(text.split())
    for shown in (
        "0.31",
        "2.15",
        "75 65–85",
        "8.4 tokens",
        "people 12",
        "60 conversations, 12 prompts",
        "2,400 tokens",
    ):
        assert shown in " ".join(text.split()), shown
    assert text.count("Trained on") == 2
    assert "38 % 21–57" in " ".join(text.split()), "the share of all prompts that were trained on"
    assert html.count("<figure") == 2 and html.count('<i class="second">') == 1, "tutor has no held-out line"


def test_what_was_not_measured_is_said_and_not_drawn(tmp_path: Path) -> None:
    run = build_fake_run(tmp_path, stages=("sft",))
    text = " ".join(english(str(sft(read_run(run)))).split())
    assert "tutor: seen 0.6 times" in text and "tutor: seen 0.6 times, gap" not in text
    assert "nothing is held out" in text

    def known(metrics: dict[str, Any]) -> None:
        metrics["memorised"]["sources"][1]["heldout_known"] = 31

    text = " ".join(english(str(sft(read_run(changed(run, known))))).split())
    assert "none of 31 was measured" in text and "nothing is held out" not in text
    older = changed(run, lambda metrics: metrics.pop("memorised"))
    assert sft(read_run(older)) is None, "a run of before"
    assert 'id="sft"' not in render(read_run(older))


def test_curves_are_drawn_while_there_is_no_result_and_only_once(tmp_path: Path) -> None:
    run = build_fake_run(tmp_path, stages=("sft",))
    rows = [{"step": step, "loss": 3.0, "train_loss/a b": 2.0, "heldout_loss/a b": 2.5} for step in (1, 2)]
    (run / "sft" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (run / "sft" / "result.json").unlink()
    record = read_run(run)
    assert str(sft(record)).count("<figure") == 1
    assert '<figcaption><bdi class="said">a b</bdi></figcaption>' in str(sft(record))
    assert "a b" not in str(curves(record))
    (stage,) = (stage for stage in record.stages if stage.stage == "sft")
    assert metric_names(stage) == ["loss", "train_loss/a b"], "what is held out stands in the other's chart"
    assert companion("train_loss/a b") == "heldout_loss/a b" and companion("loss") == "heldout_loss"
    assert companion("train_loss") == companion("other/a b") == ""


def test_many_sources_are_folded_away(tmp_path: Path) -> None:
    run = build_fake_run(tmp_path, stages=("sft",))

    def many(metrics: dict[str, Any]) -> None:
        metrics["memorised"]["curve"] = [
            {"step": step, **{f"train_loss/{n}": 1.0 for n in range(15)}} for step in (0, 10)
        ]

    html = str(sft(read_run(changed(run, many))))
    assert html.count("<figure") == 15
    assert "More sources: 3" in english(html)
