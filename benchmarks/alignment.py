"""Do PPO, DPO and best-of-n win over fine-tuning, by a judge that none of them was trained against? Over several seeds.

    python benchmarks/alignment.py --run runs/quickstart --work runs/alignment --seeds 1 2 3

Each seed is a run of recipes/alignment.yaml from the same fine-tuned model: its reward model, its judge, its policies and the
replies that are compared. Stopped, the same command goes on where it was; a seed that is done is not run again. The table
holds, for each model, the share of held-out prompts that it wins (judged blind, in both orders) of each seed and the mean
with Student's interval over the seeds, and what the judge does not see: length, repetition, replies that end. `holds` says
whether a model wins more than --goal in every seed without growing longer or more repetitive: length by no more than a tenth,
repetition by no more than two standard errors.

Writes WORK/alignment.json; each seed's own report lies in WORK/seed-N/report.html.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from duihua import console
from duihua.config import load_yaml
from duihua.data.home import data_directory
from duihua.errors import ConfigError, DuihuaError
from duihua.evaluation.intervals import t_interval
from duihua.files import write_json
from duihua.report.recipe import Recipe, parse_recipe
from duihua.report.runner import run_recipe
from duihua.stages.context import StageResult

RECIPE = Path(__file__).parents[1] / "recipes" / "alignment.yaml"
STARTS_FROM = "runs/quickstart"
"""The run that the recipe names; --run stands in its place."""


def recipe_of(path: Path, run: Path, seed: int, settings: Sequence[str]) -> Recipe:
    """The recipe for one seed, from the models of `run`. Raises ConfigError."""
    mapping = load_yaml(path)
    for entry in mapping["stages"]:
        wiring: dict[str, Any] = (entry.get("from") or {}) if isinstance(entry, Mapping) else {}
        for role, given in wiring.items():
            if str(given).startswith(STARTS_FROM):
                wiring[role] = str(run) + str(given)[len(STARTS_FROM) :]
    return parse_recipe(mapping, [*settings, f"seed={seed}"], name=path.stem, where=str(path))


def compared(recipe: Recipe, directory: Path) -> dict[str, Any]:
    """What the recipe's comparison found. ConfigError where it has none."""
    name = next((planned.name for planned in recipe.stages if planned.stage.name == "compare"), None)
    if name is None:
        raise ConfigError("the recipe compares nothing", where=recipe.name, remedy="Give it a stage `compare`")
    return StageResult.load(directory / name).metrics


def together(found: Mapping[int, Mapping[str, Any]], goal: float) -> dict[str, Any]:
    """The rows of all seeds, a model each: wins by seed and over seeds, KL, and the changes of what the judge does not see."""
    models = list(dict.fromkeys(name for one in found.values() for name in one["against_reference"]))
    rows = {}
    for name in models:
        seeds = {
            seed: one["against_reference"][name] for seed, one in found.items() if name in one["against_reference"]
        }
        wins = {seed: row["win_rate"] for seed, row in seeds.items()}
        rows[name] = {
            "wins": {str(seed): rate for seed, rate in wins.items()},
            "mean": t_interval([rate["value"] for rate in wins.values()]).to_dict(),
            "kl_nats": [row["kl_nats"] for row in seeds.values()],
            **{
                measure: {
                    side: [row[measure][side] for row in seeds.values()] for side in ("before", "after", "change")
                }
                for measure in ("length", "repetition_rate", "eos_rate")
            },
            "holds": all(holds(row, goal) for row in seeds.values()),
        }
    return {
        "goal": goal,
        "seeds": list(found),
        "models": rows,
        "judge_accuracy": {str(seed): one.get("judge_accuracy") for seed, one in found.items()},
    }


def holds(row: Mapping[str, Any], goal: float) -> bool:
    """Whether a model wins more than `goal` of the prompts without replies that are longer or more repetitive."""
    length, repetition = row["length"], row["repetition_rate"]["change"]
    longer = length["after"] > 1.1 * length["before"]
    return row["win_rate"]["value"] > goal and not longer and repetition["value"] <= 2 * repetition["standard_error"]


def show(result: Mapping[str, Any]) -> None:
    """The table."""
    rows = []
    for name, row in result["models"].items():
        mean, length, repeated = row["mean"], row["length"], row["repetition_rate"]
        kl = [value for value in row["kl_nats"] if value is not None]
        rows.append(
            [
                name,
                " ".join(f"{rate['value']:.3f}" for rate in row["wins"].values()),
                f"{mean['value']:.3f}"
                if mean["n"] < 2
                else f"{mean['value']:.3f} [{mean['low']:.3f}, {mean['high']:.3f}]",
                f"{sum(kl) / len(kl):.2f}" if kl else "",
                f"{_mean(length['before']):.1f} -> {_mean(length['after']):.1f}",
                f"{_mean(repeated['before']):.4f} -> {_mean(repeated['after']):.4f}",
                f"{_mean(row['eos_rate']['before']):.3f} -> {_mean(row['eos_rate']['after']):.3f}",
                "yes" if row["holds"] else "no",
            ]
        )
    columns = [
        "model",
        "wins, by seed",
        "mean",
        "KL",
        "length",
        "repetition",
        "ended",
        f"> {result['goal']:.0%}, clean",
    ]
    console.table("over the fine-tuned model, judged blind by a held-out reward model", columns, rows)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def main(argv: Sequence[str] | None = None) -> int:
    """Run every seed, show and write what they found together. Returns 0, or 2 for what the user can mend."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--run", type=Path, default=Path(STARTS_FROM), help="a finished run with pretrain and sft")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/alignment"), help="where the runs of the seeds are kept"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument(
        "--set", action="append", default=[], metavar="STAGE.FIELD=VALUE", help="over the recipe's settings"
    )
    parser.add_argument("--goal", type=float, default=0.6, help="share of wins that is asked for")
    parser.add_argument("--data", default="", help="data directory (default $DUIHUA_HOME or ~/.cache/duihua)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    given = parser.parse_args(argv)
    try:
        with console.json_output(given.json):
            found: dict[int, dict[str, Any]] = {}
            for seed in given.seeds:
                recipe = recipe_of(given.recipe, given.run, seed, given.set)
                directory = given.work / f"seed-{seed}"
                run_recipe(recipe, directory, data_directory(given.data), device=given.device)
                found[seed] = compared(recipe, directory)
                result = together(found, given.goal)
                write_json(given.work / "alignment.json", result)  # after each seed: what there is can be read
            show(result)
            if given.json:
                console.emit_json(result)
    except DuihuaError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
