"""The report's comparison of all models: every figure is there, nothing hostile runs, and it fits a phone."""

from __future__ import annotations

import json
import re
import runpy
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from duihua.report.page import write_report
from duihua.report.summary import write_summary

HERE = Path(__file__).parent
build_fake_run = runpy.run_path(str(HERE / "fake_run.py"))["build_fake_run"]
add_comparison = runpy.run_path(str(HERE / "fake_compare.py"))["add_comparison"]
HOSTILE = "<script>window.hacked=1</script><img src=x onerror=window.hacked=1>"


def made(folder: Path, hostile: str = "") -> Path:
    return add_comparison(build_fake_run(folder, hostile=hostile), hostile)


def html_of(run: Path) -> str:
    return write_report(run).read_text(encoding="utf-8")


def text_of(html: str, section: str) -> str:
    """The English text of a section, tags removed."""
    body = html[html.index(f'<section id="{section}"') :].split("</section>", maxsplit=1)[0]
    body = re.sub(r'<span class="zh".*?</span>', "", body)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", body)))


def change_metrics(run: Path, stage: str, **changes: Any) -> None:
    path = run / stage / "result.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    stored["metrics"] |= changes
    path.write_text(json.dumps(stored), encoding="utf-8")


def test_all_stages_answer_one_prompt_side_by_side(tmp_path: Path) -> None:
    shown = text_of(html_of(made(tmp_path)), "compare")
    assert (
        "User Do you like music? Assistant Yes, very much. User What kind? Base Reply of base SFT Reply of sft" in shown
    )
    assert "Best of 8 Reply of best_of_n" in shown and "PPO Reply of ppo" in shown
    assert "More prompts: 2" in shown


def test_wins_stand_with_their_intervals_and_the_judge_with_its_accuracy(tmp_path: Path) -> None:
    run = made(tmp_path)
    html = html_of(run)
    shown = text_of(html, "compare")
    assert "prefers the better reply in 0.731 of its held-out pairs [0.690, 0.770]" in shown
    assert '<td class="won">69<span class="second-line">63–75</span></td>' in html, "PPO over SFT"
    assert '<td class="lost">42<span class="second-line">36–48</span></td>' in html, "DPO over SFT"
    assert html.count('<td class="empty"></td>') == 15, "each pair stands once"
    change_metrics(run, "compare", judge_is_the_training_reward=True)
    assert "verdicts prove little" in text_of(html_of(run), "compare")
    change_metrics(run, "compare", judge_is_the_training_reward=False, judge="rules", judge_accuracy=None)
    assert "rules that are worked out" in text_of(html_of(run), "compare")


def test_what_the_judge_does_not_see_stands_beside_its_verdict(tmp_path: Path) -> None:
    shown = text_of(html_of(made(tmp_path)), "compare")
    assert "G PPO 68.8% 62.8–74.8 +0.188 ± 0.040 4.03" in shown
    assert "C Best of 8 71.0% 65.0–77.0 +0.210 ± 0.040 ≤ 1.20" in shown, "the distance of best-of-n is a bound"
    assert "B SFT 11.2 0.0012 0.970 A Base 12.5 +1.3 ± 0.0 0.0034 +0.0022 ± 0.0100 0.990 +0.020 ± 0.010" in shown


def test_replies_that_got_worse_are_shown_and_models_without_any_are_not_named(tmp_path: Path) -> None:
    shown = text_of(html_of(made(tmp_path)), "compare")
    worse = shown[shown.index("Where it got worse") :]
    assert "E DPO Hello SFT Hello, how are you? judge’s score +1.50 DPO the the the judge’s score −2.25" in worse
    assert "G PPO" not in worse and "More of them: 1" in worse


def test_the_curve_shows_the_best_step_and_the_frontier_every_trained_model(tmp_path: Path) -> None:
    run = made(tmp_path)
    html = html_of(run)
    shown = text_of(html, "gaming")
    assert "PPO : scores while it trained" in shown.replace("PPO:", "PPO :")
    assert "★ best at step 48: +0.44." in shown and "Step 48 was kept." in shown
    assert "F GRPO +0.16 at 3.10 nats" in shown and "best of 1 to 8" in shown
    assert html.count('<b class="mark"') == 5, "four models and the best step"
    change_metrics(run, "ppo", over_optimisation={**json.loads((run / "ppo" / "result.json").read_text())["metrics"][
        "over_optimisation"], "kept_step": None})  # fmt: skip
    assert "The last step was kept." in text_of(html_of(run), "gaming")
    (run / "compare" / "result.json").unlink()
    html = html_of(run)
    assert '<section id="gaming"' in html and '<section id="compare"' not in html


def test_the_summary_holds_the_wins_over_the_fine_tuned_model(tmp_path: Path) -> None:
    found = write_summary(made(tmp_path / "with"))
    assert found["wins"]["ppo"] == {"value": 0.688, "low": 0.688 - 0.06, "high": 0.688 + 0.06}
    assert set(found["wins"]) == {"best_of_n", "rejection_sampling", "dpo", "grpo", "ppo"}
    assert "wins" not in write_summary(build_fake_run(tmp_path / "without"))


def test_a_run_without_a_comparison_has_neither_section(tmp_path: Path) -> None:
    html = html_of(build_fake_run(tmp_path))
    assert '<section id="gaming"' not in html and '<section id="compare"' not in html


def test_a_comparison_with_holes_does_not_stop_the_report(tmp_path: Path) -> None:
    run = made(tmp_path)
    change_metrics(run, "compare", matrix=[], frontier={"points": [{"model": "ppo"}]}, worse=None, time_machine=None,
                   against_reference={"ppo": {}}, models=None, judge_accuracy=None)  # fmt: skip
    change_metrics(run, "ppo", over_optimisation={"rows": [{"step": 0}]})
    assert "Against the fine-tuned model" in text_of(html_of(run), "compare")


@pytest.mark.page
@pytest.mark.parametrize(("width", "locale"), [(1280, "en-US"), (390, "zh-CN"), (390, "en-US")])
def test_it_fits_and_runs_nothing(browser: Any, tmp_path: Path, width: int, locale: str) -> None:
    report = write_report(made(tmp_path, HOSTILE)).as_uri()
    context = browser.new_context(viewport={"width": width, "height": 800}, locale=locale)
    page = context.new_page()
    page.goto(report)
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.evaluate("window.hacked === undefined")
    cut_off = """[...document.querySelectorAll('#compare .wins')]
                 .filter(one => one.offsetWidth > one.parentElement.clientWidth).length"""
    assert page.evaluate(cut_off) == 0
    page.evaluate("document.querySelector('#compare .wins').style.width = '3000px'")
    assert page.evaluate(cut_off) == 1
    context.close()


def test_the_best_step_says_by_whose_judgement(tmp_path: Path) -> None:
    run = made(tmp_path)
    stored = json.loads((run / "ppo" / "result.json").read_text())["metrics"]["over_optimisation"]

    def shown(**changes: Any) -> str:
        change_metrics(run, "ppo", over_optimisation={**stored, **changes})
        return text_of(html_of(run), "gaming")

    by_judge = shown(best_by="heldout_judge", judge="reward_model")
    assert "a judge that it is not trained on" in by_judge and "Nobody else judged" not in by_judge
    assert "a gold rule that it is not trained on" in shown(best_by="heldout_judge", judge="gold")
    assert "a gold rule" not in by_judge
    measured = [{**row, "heldout_gold": 0.5} for row in stored["rows"]]
    both = shown(best_by="heldout_judge", judge="reward_model", rows=measured)
    assert "a gold rule that it is not trained on" in both and "a judge that it is not trained on" in both
    rows = [{name: value for name, value in row.items() if name != "heldout_judge"} for row in stored["rows"]]
    alone = shown(rows=rows, best_step=96, best_by="heldout_reward", judge=None)
    assert "★ best at step 96: +0.90. Nobody else judged" in alone and "a judge that it is not trained on" not in alone
    assert "Nobody else judged" in shown(rows=rows, best_step=96), "a result of an older version"
    rules = shown(best_by="heldout_judge", judge="rules")
    assert "worked out, not learnt" in rules and "Nobody else judged" not in rules
    assert "a judge that it is not trained on" not in rules
