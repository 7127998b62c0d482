"""The real lm-evaluation-harness asks our adapter and its own `hf` model the same questions, over one directory.

lm_eval is no dependency: without it the comparison is skipped, and only what needs none of it is tested.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from duihua.errors import BundleError, ConfigError
from duihua.evaluation.harness import HarnessAdapter, generation_settings, harness_model, rolling_windows
from duihua.evaluation.language_model import Counted, DecoderModel
from duihua.evaluation.perplexity import Window
from duihua.models.recurrent import RecurrentLM
from duihua.models.recurrent_config import RecurrentConfig
from duihua.text.characters import CharacterVocabulary

INSTALLED = importlib.util.find_spec("lm_eval") is not None
with_harness = pytest.mark.skipif(not INSTALLED, reason="lm_eval is not installed: `pip install lm-eval`")

ROWS = [
    {"q": "The cat sat on the", "options": ["mat.", "hill, and the sun", "dog"], "answer": 0, "text": "The dog ran."},
    {"q": "A dog ran over ", "options": ["the hill", "us", "water and the cat"], "answer": 2, "text": "我爱你。" * 12},
    {"q": "今天天气", "options": ["很好", "我们", "走"], "answer": 0, "text": "The sun shines on the water. " * 9},
    {"q": "The sun shines on the water. " * 4, "options": ["Water", "Sun", "A hill"], "answer": 1, "text": "x"},
]
TASKS = {
    "choices": """
output_type: multiple_choice
doc_to_text: "{{q}}"
doc_to_choice: "{{options}}"
doc_to_target: answer
metric_list:
  - metric: acc
  - metric: acc_norm
""",
    "words": """
output_type: loglikelihood
doc_to_text: "{{q}}"
doc_to_target: " {{options[answer]}}"
metric_list:
  - metric: perplexity
  - metric: acc
""",
    "rolling": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list:
  - metric: word_perplexity
  - metric: byte_perplexity
  - metric: bits_per_byte
""",
    "answers": """
output_type: generate_until
doc_to_text: "{{q}}"
doc_to_target: "{{options[0]}}"
generation_kwargs:
  until: ["\\n\\n"]
  max_gen_toks: 6
  do_sample: false
metric_list:
  - metric: exact_match
""",
}


@pytest.fixture(scope="module")
def task_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("harness")
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS), encoding="utf-8")
    for name, body in TASKS.items():
        head = f"""
task: duihua_{name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {folder / "rows.jsonl"}
test_split: test
"""
        (folder / f"{name}.yaml").write_text(head + body, encoding="utf-8")
    return folder


def evaluate(model: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the four tasks offline; the samples' answers by task."""
    lm_eval: Any = pytest.importorskip("lm_eval")
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(folder / "cache"))
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    found = lm_eval.simple_evaluate(
        model=model, tasks=[f"duihua_{name}" for name in TASKS], task_manager=manager, bootstrap_iters=0
    )
    return {"results": found["results"], "samples": found["samples"]}


def numbers(results: dict[str, Any]) -> dict[str, float]:
    """Every metric of every task under one name."""
    return {
        f"{task} {metric}": value
        for task, metrics in results.items()
        for metric, value in metrics.items()
        if isinstance(value, float | int) and not isinstance(value, bool)
    }


@with_harness
def test_the_harness_finds_the_same_numbers_as_with_its_own_hugging_face_model(
    bundle_directory: Path, other_directory: Path, task_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.models.huggingface import HFLM

    ours = harness_model(bundle_directory)
    start = ours.model.start_id
    theirs = HFLM(str(bundle_directory), device="cpu", batch_size=1, dtype="float32", prefix_token_id=start)
    ours, theirs, others = (
        evaluate(model, task_folder, monkeypatch) for model in (ours, theirs, harness_model(other_directory))
    )
    assert numbers(ours["results"]).keys() == numbers(theirs["results"]).keys()
    for name, value in numbers(theirs["results"]).items():
        assert numbers(ours["results"])[name] == pytest.approx(value, rel=1e-4), name
    assert numbers(others["results"]) != pytest.approx(numbers(theirs["results"]), rel=1e-2), "another model differs"
    for task in TASKS:
        for one, other in zip(ours["samples"][f"duihua_{task}"], theirs["samples"][f"duihua_{task}"], strict=True):
            for answer, expected in zip(flat(one["resps"]), flat(other["resps"]), strict=True):
                assert answer == (pytest.approx(expected, rel=1e-4) if isinstance(expected, float) else expected)


def flat(answers: Any) -> list[Any]:
    """The answers of a sample, numbers, flags and texts, without their nesting."""
    if isinstance(answers, list | tuple):
        return [each for answer in answers for each in flat(answer)]
    return [answers]


@pytest.mark.skipif(INSTALLED, reason="lm_eval is installed")
def test_without_the_harness_one_line_says_what_to_install(bundle_directory: Path) -> None:
    with pytest.raises(ConfigError, match="pip install lm-eval"):
        harness_model(bundle_directory)


def test_rolling_windows_are_those_of_the_harness_s_documentation() -> None:
    # ten tokens, context 4: inputs BOS 0 1 2 | 3 4 5 6 | 5 6 7 8, of the last only 8 and 9 are counted
    assert rolling_windows(10, 4) == [Window(0, 4, 4), Window(4, 8, 4), Window(6, 10, 2)]
    assert rolling_windows(3, 4) == [Window(0, 3, 3)]
    assert rolling_windows(10, None) == [Window(0, 10, 10)]
    assert rolling_windows(0, 4) == []


@dataclass(frozen=True)
class Question:
    args: tuple[Any, ...]


def test_models_without_a_chat_answer_with_likelihoods_alone() -> None:
    vocabulary = CharacterVocabulary.train(["abc "])
    network = RecurrentLM(RecurrentConfig(vocabulary.vocabulary_size, end_id=1, width=8, layers=1)).initialise(0)
    adapter = HarnessAdapter(Counted(network, vocabulary, "counts"))
    (rolled,) = adapter.loglikelihood_rolling([Question(("abc cab",))])
    expected = network.log_probabilities([1, *vocabulary.encode("abc cab")]).sum()
    assert rolled == pytest.approx(float(expected), rel=1e-5)
    ((scored, greedy),) = adapter.loglikelihood([Question(("abc", " cab"))])
    assert scored == pytest.approx(float(network.log_probabilities(vocabulary.encode("abc cab"))[2:].sum()), rel=1e-5)
    assert greedy is False
    with pytest.raises(BundleError, match="only decoders"):
        adapter.generate_until([Question(("abc", {}))])


def test_answers_stop_where_the_task_says(decoder: DecoderModel) -> None:
    adapter = HarnessAdapter(decoder)
    whole, other = adapter.generate_until(
        [Question(("The cat", {"until": [], "max_gen_toks": 8})), Question(("The dog", {"max_gen_toks": 4}))]
    )
    assert whole
    middle = whole[len(whole) // 2]
    (stopped,) = adapter.generate_until([Question(("The cat", {"until": middle, "max_gen_toks": 8}))])
    assert stopped == whole[: whole.index(middle)]
    assert len(decoder.encode([other])[0]) <= 8
    with pytest.raises(ConfigError, match="answers of 24 tokens"):
        generation_settings({"max_gen_toks": 24}, 24)
