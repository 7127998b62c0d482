from __future__ import annotations

from pathlib import Path

import pytest

from duihua.config.mapping import parse_yaml
from duihua.errors import ConfigError
from duihua.report.recipe import Recipe, load_recipe, parse_recipe
from duihua.stages import STAGES

RECIPES = Path(__file__).parents[2] / "recipes"

ROAD = """\
recipe: road
about: {en: All, zh: 全部}
seed: 7
threads: 2
stages:
  - tokenizer:
  - pretrain: {steps: 5}
  - sft: {steps: 6}
  - sft: {steps: 7}
    as: sft-long
  - reward:
  - ppo:
  - evaluate:
"""


def read(text: str, *settings: str) -> Recipe:
    return parse_recipe(parse_yaml(text, "a.yaml"), settings, name="a", where="a.yaml")


def refused(text: str, *settings: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text, *settings)
    return str(caught.value)


def test_each_input_comes_from_the_latest_stage_that_makes_it() -> None:
    recipe = read(ROAD)
    wiring = {stage.name: dict(stage.inputs) for stage in recipe.stages}
    assert wiring == {
        "tokenizer": {},
        "pretrain": {"tokenizer": "tokenizer"},
        "sft": {"policy": "pretrain"},
        "sft-long": {"policy": "pretrain"},
        "reward": {"policy": "sft-long"},
        "ppo": {"policy": "sft-long", "reward": "reward"},
        "evaluate": {"base": "pretrain", "sft": "sft-long", "reward": "reward", "ppo": "ppo"},
    }
    assert (recipe.name, recipe.seed, recipe.threads, recipe.about["zh"]) == ("road", 7, 2, "全部")
    assert [stage.config.steps for stage in recipe.stages[1:4]] == [5, 6, 7]


def test_from_names_a_stage_or_a_folder(tmp_path: Path) -> None:
    text = ROAD.replace("as: sft-long", f"as: sft-long\n    from: {{policy: {tmp_path}}}")
    assert read(text).stages[3].inputs == {"policy": tmp_path}
    text = ROAD.replace("- ppo:", "- ppo:\n    from: {policy: sft}")
    assert read(text).stages[5].inputs == {"policy": "sft", "reward": "reward"}
    assert "a.yaml:13: 'stf' is neither" in refused(text.replace("policy: sft}", "policy: stf}"))
    assert "The nearest known name is 'policy'" in refused(text.replace("{policy:", "{polcy:"))


def test_settings_go_over_the_recipe() -> None:
    recipe = read(ROAD, "sft-long.steps=9", "pretrain.shape.width=128", "seed=3")
    assert recipe.seed == 3
    assert recipe.stages[3].config.steps == 9
    assert recipe.stages[2].config.steps == 6
    assert recipe.stages[1].config.shape.width == 128


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recipe: x\nstagse: []\n", "a.yaml:2: unknown key 'stagse'. The nearest known name is 'stages'."),
        ("recipe: x\n", "a.yaml: has no stages"),
        ("sft: {steps: 3}\nstages: [tokenizer]\n", "Stages stand in a list under the key 'stages'"),
        (
            "stages:\n  - tokeniser: {}\n",
            "a.yaml:2: there is no stage 'tokeniser'. The nearest known name is 'tokenizer'",
        ),
        ("stages:\n  - tokenizer:\n  - tokenizer:\n", "a.yaml:3: two stages are called 'tokenizer'"),
        ("stages:\n  - tokenizer:\n    vocabulary_size: 3\n", "a.yaml:3: unknown key 'vocabulary_size' beside"),
        ("stages:\n  - tokenizer: {vocabulary_siz: 3}\n", "a.yaml:2: tokenizer.vocabulary_siz: unknown key"),
        ("stages:\n  - pretrain: {}\n", "needs a tokenizer, and no stage before it makes one"),
        ("stages:\n  - evaluate: {}\n", "has nothing to work on"),
        ("stages:\n  - tokenizer:\n    as: ../up\n", "'../up' cannot be a folder's name"),
        ("stages:\n  - tokenizer:\n    as: old\n", "'old' cannot be"),
        ("stages:\n  - tokenizer: 3\n", "expected settings, found 3"),
        ("stages:\n  - 3\n", "expected a stage, found 3"),
        ("seed: -1\nstages: [tokenizer]\n", "a.yaml:1: seed: must be between"),
        ("seed: x\nstages: [tokenizer]\n", "a.yaml:1: seed: input should be a valid integer"),
        ("threads: 1.5\nstages: [tokenizer]\n", "a.yaml:1: threads: input should be a valid integer"),
    ],
)
def test_a_wrong_recipe_is_refused_with_its_place(text: str, message: str) -> None:
    assert message in refused(text)


def test_prompts_that_do_not_fit_are_refused_before_the_first_stage() -> None:
    road = "stages: [tokenizer, {pretrain: {length: %d}}, sft, {reward: {}}, {ppo: {prompt_tokens: 40, reply_tokens: 20}}]\n"
    said = refused(road % 60)
    assert "ppo.prompt_tokens: prompt_tokens 40 and reply_tokens 20 need a context of 61" in said
    assert "the models of this recipe have 60" in said
    assert len(read(road % 61).stages) == 5, "it fits to the token"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("sfft.steps=3", "there is no stage 'sfft' in this recipe. The nearest known name is 'sft'"),
        ("steps=3", "is not of the form stage.field=value"),
        ("sft.stepz=3", "--set sft.stepz=3: sft.stepz: unknown key 'stepz'. The nearest known name is 'steps'"),
        ("sft.steps=many", "--set sft.steps=many: sft.steps: input should be a valid integer"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_text(setting: str, message: str) -> None:
    assert message in refused(ROAD, setting)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_recipes_of_the_project_are_right_and_hold_every_stage_of_the_road(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("pretrain", "sft"):  # alignment starts from what the quickstart has left
        (tmp_path / "runs" / "quickstart" / name).mkdir(parents=True)
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    beside = {"classify", "bag_of_words", "ngram", "recurrent", "translate"}
    beside |= {"dpo", "grpo", "rejection_sampling", "compare"}
    road = [name for name in STAGES if name not in beside]
    whole = ["tokenizer", "pretrain"]  # a base for experiments
    if path.stem in ("quickstart", "tiny", "evening", "gpu-30min"):
        whole = road
    elif path.stem == "arithmetic":
        whole = ["tokenizer", "pretrain", "sft", "grpo"]
    elif path.stem == "alignment":
        whole = ["judge", "reward", "rejection_sampling", "dpo", "grpo", "ppo", "compare"]
    elif path.stem == "lstm-ptb":
        whole = ["recurrent"]
    elif path.stem.startswith("translate-"):
        whole = ["translate"]
    assert [stage.name for stage in recipe.stages] == whole
    assert set(recipe.about) == {"en", "zh"}
