"""report.html: complete in itself, bilingual, safe against text of models, whole also for a run that is not."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import runpy
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from duihua.report.page import SECTIONS, write_report
from duihua.report.sections.reward_figures import steps
from duihua.report.texts import TEXTS

build_fake_run = runpy.run_path(str(Path(__file__).with_name("fake_run.py")))["build_fake_run"]

VOID = {"meta", "br", "img", "input", "link", "hr", "path"}
LOADING = {"src", "srcset", "data", "poster", "action", "formaction", "background", "xlink:href"}
HOSTILE = (
    "</p></bdi></style></script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>"
    "<a href='javascript:window.hacked=1'>x</a>\"' onload=window.hacked=1 {0.__class__} {value} \x00\x1b[31m\u202egnp"
)


class Page(HTMLParser):
    """Elements in order, checked for balance; what would be loaded; where links go."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.unbalanced: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID and (not self.open or self.open.pop() != tag):
            self.unbalanced.append(tag)

    def loaded(self) -> list[str]:
        found = [str(value) for _, attributes in self.elements for name, value in attributes.items() if name in LOADING]
        return found + [
            str(attributes.get("href")) for tag, attributes in self.elements if tag in {"link", "base", "image", "use"}
        ]

    def handlers(self) -> list[str]:
        return [name for _, attributes in self.elements for name in attributes if name.startswith("on")]


ROAD = ("tokenizer", "pretrain", "sft", "reward", "ppo", "evaluate")
EVERYTHING = (*ROAD, "ngram", "recurrent", "translate", "classify")
OF_OTHER_RUNS = {"compare", "gaming", "prediction"}
"""Sections of runs that have more than the results of these stages; each has tests of its own."""


def written(run: Path) -> str:
    return write_report(run).read_text(encoding="utf-8")


def test_page_is_balanced_and_loads_nothing(tmp_path: Path) -> None:
    html = written(build_fake_run(tmp_path, stages=EVERYTHING))
    page = Page(html)
    assert page.unbalanced == [] and page.open == []
    assert page.loaded() == []
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style and "@import" not in style
    script = html[html.index("<script>") : html.index("</script>")]
    assert not re.search(r"fetch|XMLHttpRequest|import\(|https?:", script)
    links = {str(attributes["href"]) for tag, attributes in page.elements if tag == "a"}
    assert all(link.startswith(("#", "https://")) for link in links)
    # The check is not blind:
    assert Page('<link href="https://example.org/a.css"><img src="b.png">').loaded() == [
        "b.png",
        "https://example.org/a.css",
    ]


def test_policy_allows_the_one_script_by_its_hash_and_no_request(tmp_path: Path) -> None:
    html = written(build_fake_run(tmp_path, stages=("tokenizer",)))
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert script is not None and policy is not None and html.count("<script") == 1
    digest = base64.b64encode(hashlib.sha256(script[1].encode("utf-8")).digest()).decode("ascii")
    assert f"script-src 'sha256-{digest}'" in policy[1]
    assert policy[1].startswith("default-src 'none'")


def test_hostile_text_stays_text_wherever_it_appears(tmp_path: Path) -> None:
    run = build_fake_run(tmp_path, stages=EVERYTHING, hostile=HOSTILE)
    html = written(run)
    page = Page(html)
    assert page.unbalanced == [] and page.open == []
    assert page.loaded() == [] and page.handlers() == []
    assert html.count("<script") == 1
    assert "&lt;script&gt;window.hacked=1" in html
    assert not any("javascript:" in str(attributes.get("href")) for _, attributes in page.elements)
    assert not any(mark in html for mark in "\x00\x1b\u202e")
    assert "␛[31m" in html
    # Unescaped, the same text is seen by the same checks:
    raw = Page(f"<p><bdi>{HOSTILE}</bdi></p>")
    assert raw.unbalanced and raw.loaded() and raw.handlers()


def test_homepage_that_is_no_web_address_is_no_link(tmp_path: Path) -> None:
    run = build_fake_run(tmp_path, stages=("sft",))
    path = run / "sft" / "result.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    stored["metrics"]["terms"][0]["homepage"] = "javascript:alert(1)"
    path.write_text(json.dumps(stored), encoding="utf-8")
    assert "javascript:" not in written(run)


def test_every_sentence_stands_in_both_languages(tmp_path: Path) -> None:
    page = Page(written(build_fake_run(tmp_path, stages=EVERYTHING)))
    spans = [attributes.get("class") for tag, attributes in page.elements if tag == "span"]
    assert spans.count("en") == spans.count("zh") > 300


def test_complete_run_shows_every_section_and_the_main_numbers(tmp_path: Path) -> None:
    html = written(build_fake_run(tmp_path, stages=EVERYTHING))
    for name in (name for name, _ in SECTIONS if name not in OF_OTHER_RUNS):
        assert f'<section id="{name}"' in html
        assert TEXTS[f"{name}.title"].zh in html
    for shown in ("1.931", "0.713", "+0.531", "0.681", "11.8", "2.41", "36", "CC BY-SA 3.0", "3,127", "muon_learning_rate",
                  "duihua run recipes/quickstart.yaml", "tok:flores101", "2.13.0"):  # fmt: skip
        assert shown in html, shown


@pytest.mark.parametrize("count", range(6))
def test_partial_run_says_what_is_missing_and_leaves_it_out(tmp_path: Path, count: int) -> None:
    html = written(build_fake_run(tmp_path, stages=ROAD[:count]))
    page = Page(html)
    assert page.unbalanced == []
    assert 'class="partial"' in html
    partial = html[html.index('class="partial"') :].split("</p>")[0]
    for kind, present in [("reward", count > 3), ("ppo", count > 4)]:
        assert (f'<section id="{kind}"' in html) == present
        assert (TEXTS[f"stage.{kind}"].zh in partial) != present


def test_complete_run_has_no_word_of_missing_parts(tmp_path: Path) -> None:
    assert 'class="partial"' not in written(build_fake_run(tmp_path))


def test_run_of_another_recipe_is_whole_without_the_quickstarts_stages(tmp_path: Path) -> None:
    run = build_fake_run(tmp_path, stages=("tokenizer", "pretrain", "classify"))
    path = run / "run.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    assert 'class="partial"' in written(run)  # so far its recipe is the quickstart's
    stored["stages"] = [entry for entry in stored["stages"] if entry["name"] in ("tokenizer", "pretrain", "classify")]
    path.write_text(json.dumps(stored), encoding="utf-8")
    html = written(run)
    assert 'class="partial"' not in html
    assert '<section id="classify"' in html and '<section id="ppo"' not in html


def test_stage_without_a_result_is_drawn_from_its_metrics(tmp_path: Path) -> None:
    run = build_fake_run(tmp_path, stages=("tokenizer", "pretrain"))
    (run / "pretrain" / "result.json").unlink()
    html = written(run)
    assert TEXTS["stage.pretrain"].zh in html[html.index('class="partial"') :].split("</p>")[0]
    assert '<section id="curves"' in html


def test_names_of_machine_and_judge_are_chinese_in_the_chinese_report(tmp_path: Path) -> None:
    run = build_fake_run(tmp_path)
    stored = json.loads((run / "run.json").read_text(encoding="utf-8"))
    (run / "reward").rename(run / "judge")
    for stage in stored["stages"]:
        if stage["name"] == "reward":
            stage.update(name="judge", directory="judge")
    (run / "run.json").write_text(json.dumps(stored), encoding="utf-8")
    html = write_report(run).read_text(encoding="utf-8")
    assert ">评判者</span>）</span>" in html and "奖励模型 (" not in html
    assert "处理器" in html and "内存（GiB）" in html
    assert "<code>processor</code>" not in html and "<code>memory_gib</code>" not in html


def test_a_run_of_alignment_alone_says_where_its_loss_is_answered_and_counts_its_pairs(tmp_path: Path) -> None:
    run = build_fake_run(tmp_path, stages=("reward", "ppo"))
    path = run / "reward" / "result.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    stored["metrics"]["pairs"] = {"train": {"human": 1298, "cut_short": 0}, "heldout": {"human": 118}}
    path.write_text(json.dumps(stored), encoding="utf-8")
    html = write_report(run).read_text(encoding="utf-8")
    assert TEXTS["normal.elsewhere"].en in html and TEXTS["normal.elsewhere"].zh in html
    table = html.partition(TEXTS["data.pairs"].en)[2].partition("</table>")[0]
    assert re.findall(r'<td class="number">([^<]*)</td>', table) == ["1,298", "118"]
    whole = write_report(build_fake_run(tmp_path / "whole")).read_text(encoding="utf-8")
    assert TEXTS["normal.elsewhere"].en not in whole and TEXTS["data.pairs"].en not in whole


def test_a_metric_of_one_point_is_not_drawn(tmp_path: Path) -> None:
    run = build_fake_run(tmp_path, stages=("pretrain",))
    rows = [{"step": 1, "loss": 5.0, "gradient_norm": 4.9}, {"step": 2, "loss": 4.0}]
    (run / "pretrain" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    html = write_report(run).read_text(encoding="utf-8")
    drawn = re.findall(r"<figcaption>(.*?)</figcaption>", html)
    assert any(TEXTS["metric.loss"].en in caption for caption in drawn)
    assert not any(TEXTS["metric.gradient_norm"].en in caption for caption in drawn)


def test_numbers_that_are_not_finite_do_not_stop_the_report(tmp_path: Path) -> None:
    run = build_fake_run(tmp_path)
    for path in run.glob("*/result.json"):
        text = re.sub(r"(?<=[\[ ])-?\d+\.\d+(?=[,}\]])", "NaN", path.read_text(encoding="utf-8"))
        path.write_text(text, encoding="utf-8")
    html = written(run)
    assert TEXTS["normal.broken"].en in html
    assert "NaN" in html


def test_page_of_a_long_run_stays_small(tmp_path: Path) -> None:
    assert len(written(build_fake_run(tmp_path, steps=20_000)).encode("utf-8")) < 600_000


def test_bundle_size_and_moved_run(tmp_path: Path) -> None:
    run = build_fake_run(tmp_path / "a")
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    for entry in record["stages"]:
        entry["directory"] = str(tmp_path / "elsewhere" / entry["directory"])
    (run / "run.json").write_text(json.dumps(record), encoding="utf-8")
    assert "146 KiB" in written(run)


def text_of(html: str, section: str) -> str:
    """The English text of a section, tags removed."""
    body = html[html.index(f'<section id="{section}"') :].split("</section>", maxsplit=1)[0]
    body = re.sub(r'<span class="zh".*?</span>', "", body)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", body)))


def test_several_turns_say_who_speaks_and_one_turn_does_not(tmp_path: Path) -> None:
    html = written(build_fake_run(tmp_path))
    shown = text_of(html, "samples")
    assert "User Hi Assistant Hello User Tell me something about the moon. Base" in shown
    assert "→" not in shown
    assert shown.count("User") == 2
    assert "用户" in html and "助手" in html


def test_source_shows_its_terms_its_amount_and_the_stages_that_used_it(tmp_path: Path) -> None:
    run = build_fake_run(tmp_path)
    shown = text_of(written(run), "data")
    assert "small-talk English · Chinese · 9.12k records · 4.21k conversations" in shown
    assert "Licence: BSD-3-Clause. the corpus' contributors" in shown
    assert "Used by: Supervised fine-tuning · Reward model" in shown
    assert "encyclopaedia English · 41.2k records Licence" in shown  # a corpus of two sources states no amount of one


def test_reasons_are_added_up_named_by_split_and_translated(tmp_path: Path) -> None:
    html = written(build_fake_run(tmp_path))
    shown = text_of(html, "data")
    assert "prompt met before training part 9 · held-out part 4 · first met at small-talk 13" in shown
    assert "What was shortened, but used" in shown and "290" in shown
    for chinese in ("提示先前已出现", "训练部分", "留出部分", "含有不是 UTF-8 的字节", "人工偏好对截短到 128 个词元"):
        assert chinese in html
    assert "heldout" not in shown.split("What was left out")[1]


def test_time_table_takes_what_a_result_leaves_out_from_metrics_and_weights(tmp_path: Path) -> None:
    run = build_fake_run(tmp_path)
    shown = text_of(written(run), "cost")
    assert "Reward model 40 s 160 steps" in shown and "37.5k 146 KiB" in shown
    assert "180k tokens" in shown  # the last row of PPO's metrics
    (run / "reward" / "model.safetensors").write_bytes(b"\xff" * 2000)  # a broken header counts nothing
    assert "146 KiB" in text_of(written(run), "cost") and "2 KiB" not in text_of(written(run), "cost").split("PPO")[1]


def test_repetition_rates_have_one_form(tmp_path: Path) -> None:
    run = build_fake_run(tmp_path)
    path = run / "evaluate" / "result.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    stored["metrics"]["repetition_rate"] = {"base": 0.0, "sft": 0.0006880928, "ppo": 0.00046}
    path.write_text(json.dumps(stored), encoding="utf-8")
    shown = text_of(written(run), "replies")
    assert all(value in shown for value in ("0.0000", "0.0007", "0.0005")) and "e−" not in shown


def test_classifier_stands_beside_the_majority_with_both_intervals_and_its_mistakes(tmp_path: Path) -> None:
    run = build_fake_run(tmp_path, stages=EVERYTHING)
    shown = text_of(written(run), "classify")
    assert "1,000 training and 300 held-out examples." in shown and "began from the pre-trained model." in shown
    assert "Longer than 96 tokens and cut: 212 training and 61 held-out examples." in shown
    assert "Kept classifier Majority Mean of 2 seeds" in shown
    assert "Accuracy 0.823 [0.776, 0.862] 0.367 0.815 [0.713, 0.917]" in shown
    assert "F1, mean of the classes 0.811 0.179" in shown and "Matthews' correlation 0.732 0 0.72" in shown
    assert "F1 of" not in shown  # three classes: none is the positive one
    assert "True comp.graphics sci.med sport comp.graphics 81 11 8 sci.med 9 74 7 sport 6 12 92" in shown
    assert "does anyone know a good image viewer True comp.graphics Said sport" in shown
    assert "第一句 第二句 True sport Said sci.med" in shown
    assert "0.823 always the most frequent class: 0.367" in text_of(written(run), "headline")


def test_classifier_of_pairs_names_its_positive_class_and_one_of_choices_has_accuracy_alone(tmp_path: Path) -> None:
    run = build_fake_run(tmp_path, stages=EVERYTHING)
    path = run / "classify" / "result.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    metrics = stored["metrics"]
    metrics |= {"task": "similarity", "positive": "same", "f1": 0.84, "over_seeds": None, "seeds": metrics["seeds"][:1]}
    path.write_text(json.dumps(stored), encoding="utf-8")
    shown = text_of(written(run), "classify")
    assert "F1 of “ same ” 0.840" in shown and "Mean of" not in shown and "Each of the" not in shown
    metrics |= {"task": "multiple_choice", "f1": None, "from_scratch": True}
    metrics["confusion"]["labels"] = ["0", "1", "2"]
    path.write_text(json.dumps(stored), encoding="utf-8")
    shown = text_of(written(run), "classify")
    assert "from random weights" in shown and "Accuracy 0.823" in shown
    assert "Matthews" not in shown and "Which class" not in shown


def test_table_of_very_many_classes_is_left_to_the_result(tmp_path: Path) -> None:
    run = build_fake_run(tmp_path, stages=EVERYTHING)
    path = run / "classify" / "result.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    stored["metrics"]["confusion"] = {"labels": [f"c{i}" for i in range(20)], "counts": [[7] * 20] * 20}
    path.write_text(json.dumps(stored), encoding="utf-8")
    shown = text_of(written(run), "classify")
    assert "The table of 20 classes" in shown and "c19" not in shown


def test_two_classifiers_of_one_recipe_both_stand_in_the_report(tmp_path: Path) -> None:
    run = build_fake_run(tmp_path, stages=EVERYTHING)
    path = run / "run.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    stored["stages"].append({**stored["stages"][-1], "name": "mrpc"})
    path.write_text(json.dumps(stored), encoding="utf-8")
    shown = text_of(written(run), "classify")
    assert "Classification (mrpc)" in shown and shown.count("Kept classifier") == 2


def test_a_bag_of_words_stands_among_the_classifiers_with_what_it_goes_by(tmp_path: Path) -> None:
    shown = text_of(written(build_fake_run(tmp_path, stages=("tokenizer", "bag_of_words"))), "classify")
    assert "TF-IDF , logistic regression : 1,000 training and 300 held-out examples, 12,345 different words." in shown
    assert "Accuracy 0.823 [0.776, 0.862] 0.367" in shown
    assert "comp.graphics polygon, viewer sci.med doctor sport goal" in shown
    assert "pre-trained" not in shown


def test_counted_models_show_what_each_order_gains_and_what_they_write(tmp_path: Path) -> None:
    shown = text_of(written(build_fake_run(tmp_path, stages=("tokenizer", "ngram"))), "ngram")
    assert "1,234,567 tokens were counted up to 2 at a time. Vocabulary: Words , 10,000 ids." in shown
    assert "at least 1.876 bits per byte: spaces, and unknown words (4.1% of all)" in shown
    assert "1 9,998 710.2 [700.1, 720.3] 2 301,422 181.4 [170.0, 192.8]" in shown
    assert "the of a which is in the city" in shown


def test_recurrent_models_show_their_perplexities_beside_guessing_and_what_they_write(tmp_path: Path) -> None:
    run = build_fake_run(tmp_path, stages=("tokenizer", "recurrent"))
    shown = text_of(written(run), "recurrent")
    assert "LSTM, 4,321,000 parameters, trained on 690,193 tokens of words." in shown
    assert "Its weights are a mean" in shown and "5.2% are <unk>" in shown and "Penn Treebank" not in shown
    assert "Guessing every token evenly – 10,000 Training (its beginning) 50,000 88.4" in shown
    assert "Validation 59,632 141.6 Test 66,736 139.2" in shown
    assert "the river is a <unk> of the county" in shown
    assert "Validation perplexity" in text_of(written(run), "curves")
    result = json.loads((run / "recurrent" / "result.json").read_text("utf-8"))
    result["metrics"]["corpus"] = {
        "name": "ptb",
        "vocabulary_size": 10_000,
        "tokens": {"train": 929_589},
        "treebank": True,
    }
    (run / "recurrent" / "result.json").write_text(json.dumps(result), "utf-8")
    assert "The counts are those of the Penn Treebank" in text_of(written(run), "recurrent")
    assert '<section id="recurrent"' not in written(build_fake_run(tmp_path / "other", stages=("tokenizer", "ngram")))


def test_translators_show_scores_with_signatures_and_intervals_their_data_and_translations(tmp_path: Path) -> None:
    run = build_fake_run(tmp_path, stages=("translate",))
    html = written(run)
    shown = text_of(html, "translate")
    assert "French → English : Transformer , 7,622,400 parameters, one vocabulary of 8,000 ids" in shown
    assert "Training 29,452 Validation 1,014 Test 1,000" in shown and "has 3 training pairs that share a text" in shown
    assert "French → English BLEU 51.27 [49.80, 52.70] 1,000 French → English chrF 68.90 [67.90, 69.90] 1,000" in shown
    assert "beam 5, length penalty gnmt" in shown
    assert "BLEU nrefs:1|case:mixed|tok:13a|smooth:exp" in shown and "chrF nrefs:1|case:mixed|nc:6|nw:0" in shown
    assert "6-10 300 55.10 31+ 12 33.40" in shown
    assert (
        "Last step 1.571 4.81 46.10 Averaged 1.571 4.81 47.30 Best evaluation" in shown and "smooth:exp|greedy" in shown
    )
    assert "Je suis étudiant Its translation I am a student French → English Deux chiens" in shown
    assert "Reference Two dogs are playing." in shown
    charts = text_of(html, "curves")
    for title in ("Loss without smoothing", "BLEU of greedy validation translations", "Validation perplexity"):
        assert title in charts
    card = text_of(html, "headline")
    assert "BLEU of the test, French → English" in card
    assert "51.3 95% 49.8 to 52.7 · chrF 68.9 · nrefs:1|case:mixed|tok:13a" in card
    assert "multi30k-fr-en French · English" in text_of(html, "data")
    result = json.loads((run / "translate" / "result.json").read_text("utf-8"))
    result["metrics"] |= {"test": {}, "candidates": {"averaged_snapshots": 1}, "samples": []}
    (run / "translate" / "result.json").write_text(json.dumps(result), "utf-8")
    html = written(run)
    assert "have no test part, so nothing was scored" in text_of(html, "translate") and "51.27" not in html
    assert "sources have no validation part" in text_of(html, "normal")


def test_the_tokens_of_a_run_stand_in_its_report_and_a_broken_view_is_said(tmp_path: Path) -> None:
    run = build_fake_run(tmp_path, stages=("tokenizer",))
    shown = text_of(written(run), "tokens")
    assert "3.20 3.20 Words (8,192 ids)" in shown
    assert "2.0% 2.0% Words (8,192 ids)" in shown
    assert "<E7 8B> 9" in shown
    assert "unk 0" in shown
    view = run / "tokenizer" / "token_view.json"
    view.write_text('{"vocabularies": [{}]}', encoding="utf-8")
    assert "token_view.json could not be read" in text_of(written(run), "tokens")
    view.unlink()
    assert '<section id="tokens"' not in written(run)


def test_the_reward_model_shows_what_the_doctor_looks_at(tmp_path: Path) -> None:
    run = build_fake_run(tmp_path)
    html = written(run)
    shown = text_of(html, "reward")
    assert "small-talk Human preference 0.587 [0.519, 0.652] 206" in shown
    assert "tutor Human against off-topic reply ! 0.310 [0.250, 0.380] 200" in shown, "turned round for certain"
    assert "Calibration error 0.041 on 512 pairs" in shown
    assert "worse reply preferred: 233" in shown and "better reply preferred: 579" in shown
    assert "length tells nothing 0.531" in shown
    assert "190 replies of the same policy, each figure with its standard error 0.041 ± 0.103 1.009 ± 0.058" in shown
    assert "偏向较差的回复：233" in html
    stored = json.loads((run / "reward" / "result.json").read_text(encoding="utf-8"))
    for name in ("sources", "calibration_curve", "margins", "chosen_is_longer"):
        stored["metrics"].pop(name)
    stored["metrics"]["normalisation"] = {"mean": 0.2, "std": 1.4, "on_reference_policy": False}
    (run / "reward" / "result.json").write_text(json.dumps(stored), encoding="utf-8")
    older = text_of(written(run), "reward")
    assert "Accuracy by source" not in older and "preferred:" not in older and "no conversations" in older


def test_the_bars_of_a_histogram_stand_on_zero() -> None:
    assert steps([(-1.0, 0.0, 3.0), (0.0, 1.0, 5.0)]) == [(-1, 0), (-1, 3), (0, 3), (0, 5), (1, 5), (1, 0)]
