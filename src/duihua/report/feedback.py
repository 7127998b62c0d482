"""From votes to a version of the model: pairs -> judge -> (reward -> PPO) or DPO -> blind comparison -> promoted or not.

    DIR/versions.json            the versions, and which is promoted (models/versions.py)
    DIR/v1-data/                 the pairs and prompts as they were when v1 was begun (data/feedback.py)
    DIR/v1-judge/                a run of one stage: the reward model that judges the comparison
    DIR/v1/                      a run: dpo, or reward and ppo; its report
    DIR/v1-comparison/           comparison.json, and the replies of both sides

Everything that trains is a recipe, so that a training that was stopped goes on by the runner's own rules. Every version starts
from v0, the model that was there before, and learns from all pairs that there are: a model that is trained on the same votes
again and again drifts, and nobody can say any more which vote did what. It is compared with the version that is promoted.

Nothing is promoted by having been trained. It takes a person, or a gate that was stated: the lower end of the win rate's
interval lies above it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duihua import console
from duihua.cores import usable_cores
from duihua.data.feedback import (
    FEWEST_TO_JUDGE,
    read_feedback,
    read_pairs,
    require_enough,
    write_parts,
    written_parts,
)
from duihua.errors import ConfigError, DataError
from duihua.files import write_json
from duihua.models.device import check_device
from duihua.models.versions import Version, Versions
from duihua.report.feedback_recipes import METHODS, Made, Recipes, comparison_sources, recipes_of
from duihua.report.feedback_request import FIRST, Request, beside, check_folder, fingerprint_of, opened, run_of
from duihua.report.lock import only_run
from duihua.report.promotion import check_gate, promoted, why_not
from duihua.report.run_log import now
from duihua.report.runner import run_recipe, terminating_as_interrupt
from duihua.stages.context import StageResult

if TYPE_CHECKING:
    from duihua.stages.blind_comparison import Asked

COMPARISON = "comparison.json"


@dataclass(frozen=True)
class Outcome:
    """What became of it. version: the newest one; new: whether this call has made or finished it."""

    versions: Versions
    version: Version
    new: bool


def train(request: Request) -> Outcome:
    """Make the next version, or go on with the one that was begun; compare it, and promote it where the gate holds.

    Raises DuihuaError before any compute where there are too few pairs or something does not fit, and KeyboardInterrupt when it
    was stopped: the same call then goes on.
    """
    check_device(request.device)
    check_gate(request.gate)
    if request.method not in METHODS:
        raise ConfigError(f"{request.method!r} is none", where="--method", remedy=f"Choose {' or '.join(METHODS)}")
    check_folder(request.output)
    with only_run(request.output), terminating_as_interrupt():
        versions = opened(request)
        newest = versions.versions[-1]
        begun = _begun(request, versions) if newest.bundle is not None else _resumed(request, versions)
        if begun is None:
            console.say(f"Nothing new has been said since {newest.name} was made, and the settings are the same.")
            return Outcome(_gated(request, versions, newest), newest, new=False)
        newest, steps = begun
        versions.with_version(newest).save()
        newest = _bring_up(request, versions, newest, steps)
        versions = versions.with_version(newest)
        versions.save()
        return Outcome(_gated(request, versions, newest), newest, new=True)


def _begun(request: Request, versions: Versions) -> tuple[Version, Steps] | None:
    """A new version with its pairs written down, and what is to be done for it; None where the newest one is of the same."""
    feedback = read_feedback(request.store, judge=request.judge is None)
    made_from = fingerprint_of(request, versions, feedback.fingerprint)
    if versions.versions[-1].facts.get("made_from") == made_from:
        return None
    require_enough(feedback, judge=0 if request.judge else FEWEST_TO_JUDGE)
    name = f"v{len(versions.versions)}"
    folder, pairs = beside(request.output, name, "data"), feedback.counts()["pairs_by_part"]
    steps = planned(request, versions, folder, pairs["heldout"] > 0)
    write_parts(feedback, folder)
    facts = {
        "begun": now(),
        "store": str(request.store),
        "method": request.method,
        "made_from": made_from,
        "pairs": pairs,
    }
    return Version(name, None, facts), steps


def _resumed(request: Request, versions: Versions) -> tuple[Version, Steps]:
    """The version that was begun, with the pairs that there were then. DataError where they are gone."""
    version = versions.versions[-1]
    folder = beside(request.output, version.name, "data")
    stored = written_parts(folder)
    if stored is None:
        raise DataError("the pairs of this version are gone", where=str(folder), remedy="Put the folder back")
    pairs = stored["pairs_by_part"]
    if not request.judge and not pairs["judge"]:
        raise ConfigError(
            f"{version.name} was begun with a judge, and no pair was kept for another",
            where="--judge",
            remedy="Name the judge again",
        )
    console.say(f"Going on with {version.name} and the pairs that there were when it was begun.")
    steps = planned(request, versions, folder, pairs["heldout"] > 0)
    facts = {"method": request.method, "made_from": fingerprint_of(request, versions, stored["fingerprint"])}
    return dataclasses.replace(version, facts={**version.facts, **facts}), steps


# -- one version -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Steps:
    """What is to be done for a version, checked: recipes, what both sides are asked, and the version to compare with."""

    recipes: Recipes
    asked: Asked
    against: str


def planned(request: Request, versions: Versions, data: Path, heldout_pairs: bool) -> Steps:
    """Put the recipes together and open the models once, so that what does not fit is said before anything is trained."""
    from duihua.models.bundle import load_bundle
    from duihua.stages.blind_comparison import Asked, check_sides

    base = load_bundle(versions.bundle(FIRST), request.device)
    present = load_bundle(versions.bundle(versions.promoted), request.device)
    judge = load_bundle(request.judge, request.device) if request.judge else None
    _ = base.policy
    made = Made(data, heldout_pairs, base.config.context, run_of(request, versions), judge is None)
    recipes = recipes_of(
        request.method,
        base.directory.resolve(),
        made,
        settings=request.settings,
        seed=request.seed,
        threads=request.threads,
    )
    config = recipes.policy_config
    asked = Asked(
        comparison_sources(made),
        request.prompts,
        request.replies,
        config.prompt_tokens,
        config.reply_tokens,
        config.temperature,
        config.slots,
    )
    check_sides(asked, present, base, judge)
    return Steps(recipes, asked, versions.promoted)


def _bring_up(request: Request, versions: Versions, version: Version, steps: Steps) -> Version:
    """Train the judge and the version, compare, and give the version with its facts."""
    output = request.output

    def run(recipe: Any, folder: Path) -> Path:
        run_recipe(recipe, folder, request.data_directory, device=request.device, command=list(request.command))
        made = StageResult.load(folder / recipe.stages[-1].name).bundle
        assert made is not None
        return made

    judge = request.judge
    if steps.recipes.judge is not None:
        judge = run(steps.recipes.judge, beside(output, version.name, "judge"))
    assert judge is not None
    bundle = run(steps.recipes.training, output / version.name)
    compared = compared_with(request, versions, steps, judge, bundle, version.name)
    facts = {
        "finished": now(),
        "comparison": {name: compared[name] for name in ("against", "win_rate", "judge")},
    }
    return Version(version.name, bundle, {**version.facts, **facts})


def compared_with(
    request: Request, versions: Versions, steps: Steps, judge: Path, bundle: Path, name: str
) -> dict[str, Any]:
    """The blind comparison of a new bundle with the promoted one; also written as comparison.json, and shown."""
    from duihua.models.bundle import load_bundle
    from duihua.stages.blind_comparison import compare_blind, judge_accuracy, show
    from duihua.stages.execution import settled

    folder = beside(request.output, name, "comparison")
    held = read_pairs(beside(request.output, name, "data"), "heldout")
    with settled(request.device, request.threads or usable_cores(), request.seed):
        compared = compare_blind(
            versions.bundle(steps.against),
            bundle,
            judge,
            steps.asked,
            data_directory=request.data_directory,
            folder=folder,
            seed=request.seed,
            device=request.device,
        )
        accuracy = judge_accuracy(load_bundle(judge, request.device), held)
    found = {
        "against": steps.against,
        "judge": {"bundle": str(judge), "accuracy": accuracy},
        **compared.to_mapping(steps.asked.samples),
    }
    write_json(folder / COMPARISON, found)
    show(found, steps.against, name)
    return found


def _gated(request: Request, versions: Versions, version: Version) -> Versions:
    """Promote by the gate that was stated; say what holds."""
    if version.name == versions.promoted:
        return versions
    word = f"`duihua feedback promote {request.output} {version.name}` makes it {version.name}"
    if request.gate is None:
        console.say(f"{versions.promoted} stays the promoted version; {word}")
        return versions
    refused = why_not(versions, version, request.gate)
    if refused:
        console.say(f"{versions.promoted} stays the promoted version: {refused}; {word} all the same")
        return versions
    return promoted(versions, version.name, "gate", request.gate)
