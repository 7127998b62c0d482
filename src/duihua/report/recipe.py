"""A recipe: the stages of a run in order, each with its config and where its inputs come from.

    recipe: quickstart
    about: {en: ..., zh: ...}
    seed: 1
    threads: 2
    stages:
      - tokenizer: {vocabulary_size: 8192}
      - pretrain: {steps: 600}
      - sft: {steps: 100}
        as: sft-short
        from: {policy: pretrain}

All of it is checked before anything runs: a misspelt key of the last stage must not be found after an hour of training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from duihua.config import Located, build, load_yaml, override
from duihua.config.mapping import suggestion
from duihua.errors import ConfigError
from duihua.report.recipe_context import check_contexts
from duihua.report.recipe_cost import RecipeCost
from duihua.stages import STAGES, Stage, find_stage
from duihua.stages.configs.dial import names_in, stating

TOP_KEYS = ("recipe", "about", "seed", "threads", "cost", "stages")
ENTRY_KEYS = ("as", "from")
MOST_THREADS = 1024


@dataclass(frozen=True)
class PlannedStage:
    """One stage of a recipe. `inputs` maps a role to the name of an earlier stage, or to a bundle's directory."""

    name: str
    stage: Stage
    config: Any
    inputs: Mapping[str, str | Path]


@dataclass(frozen=True)
class Recipe:
    """A recipe that has been read and checked. threads 0: as many as the machine has cores. cost: what it took where it was
    measured; None where it says none, or where settings were put over it."""

    name: str
    about: Mapping[str, str]
    seed: int
    threads: int
    stages: tuple[PlannedStage, ...]
    cost: RecipeCost | None = None


@dataclass(frozen=True)
class _Top:
    """The recipe's own keys, for the type check."""

    recipe: str = ""
    """Name of the recipe; the file's name when it is missing."""
    about: str | dict[str, str] = field(default_factory=dict)
    """What the recipe is for, in each language."""
    seed: int = 0
    """Seed of every random choice of the run."""
    threads: int = 0
    """CPU threads; 0 means one for each core. Another number can change the last digits of the result."""
    cost: RecipeCost | None = None
    """What the recipe took where it was measured."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**31:
            raise ConfigError(
                f"must be between 0 and {2**31 - 1}, found {self.seed}",
                where="seed",
                remedy="Choose a smaller or a positive number; 0 is usual",
            )
        if not 0 <= self.threads <= MOST_THREADS:
            raise ConfigError(
                f"must be between 0 and {MOST_THREADS}, found {self.threads}",
                where="threads",
                remedy="Set 0 for one thread on each core",
            )


def load_recipe(path: Path, settings: Sequence[str] = ()) -> Recipe:
    """Read a recipe; `settings` (`seed=2`, `pretrain.steps=100`) are put over it. Raises ConfigError with file and line."""
    return parse_recipe(load_yaml(path), settings, name=path.stem, where=str(path))


def parse_recipe(mapping: Mapping[str, Any], settings: Sequence[str] = (), name: str = "", where: str = "") -> Recipe:
    """The recipe in a mapping as `load_yaml` gives it."""
    for key in mapping:
        if key not in TOP_KEYS:
            remedy = suggestion(key, TOP_KEYS)
            if key in STAGES:
                remedy = "Stages stand in a list under the key 'stages'"
            raise ConfigError(f"unknown key {key!r}", where=_place(mapping, key, where), remedy=remedy)
    entries = mapping.get("stages")
    if not isinstance(entries, list) or not entries:
        raise ConfigError(
            "has no stages",
            where=_place(mapping, "stages", where),
            remedy="List them under `stages:`, each as `- sft: {...}`",
        )
    raw = [_read_entry(entry, f"{where}: stages[{number}]") for number, entry in enumerate(entries)]
    names = [each.name for each in raw]
    for number, each in enumerate(raw):
        if each.name in names[:number]:
            raise ConfigError(
                f"two stages are called {each.name!r}", where=each.place, remedy="Give one of them a name with `as:`"
            )
    own = [setting for setting in settings if setting.partition("=")[0].strip() in ("seed", "threads", "recipe")]
    of_stages = [setting for setting in settings if setting not in own]
    for setting in of_stages:
        stage, dot, _ = setting.partition("=")[0].strip().partition(".")
        if stage not in names or not dot:
            raise ConfigError(
                f"there is no stage {stage!r} in this recipe" if dot else "is not of the form stage.field=value",
                where=f"--set {setting}",
                remedy=suggestion(stage, [*names, "seed", "threads"])
                if dot
                else "Write, for example, --set sft.steps=50",
            )
    configs = override(Located({each.name: each.config for each in raw}), of_stages)
    top = Located({key: value for key, value in mapping.items() if key != "stages" and value is not None})
    top.places = dict(getattr(mapping, "places", {}))
    head = build(_Top, override(top, own))
    stages: list[PlannedStage] = []
    for each in raw:
        config = build(each.stage.config_class(), configs[each.name], each.name)
        config = stating(config, names_in(configs[each.name] or {}), each.name)
        stages.append(PlannedStage(each.name, each.stage, config, _wire(each, stages)))
    check_contexts(stages)
    cost = None if of_stages else head.cost
    about = {"en": head.about} if isinstance(head.about, str) else head.about
    return Recipe(head.recipe or name or "recipe", about, head.seed, head.threads, tuple(stages), cost)


@dataclass(frozen=True)
class _Entry:
    name: str
    stage: Stage
    config: Mapping[str, Any]
    wiring: Mapping[str, str]
    place: str


def _place(mapping: Any, key: str, where: str) -> str:
    places: Mapping[str, str] = getattr(mapping, "places", {})
    return places.get(key, where)


def _read_entry(entry: Any, where: str) -> _Entry:
    if isinstance(entry, str):
        entry = Located({entry: None}, place=where)
    if not isinstance(entry, Mapping):
        raise ConfigError(f"expected a stage, found {entry!r}", where=where, remedy="Write `- sft: {steps: 100}`")
    kinds = [key for key in entry if key not in ENTRY_KEYS]
    if not kinds:
        raise ConfigError("names no stage", where=where, remedy="Known here: " + ", ".join(STAGES))
    kind = kinds[0]
    stage = find_stage(kind, _place(entry, kind, where))
    if len(kinds) > 1:
        raise ConfigError(
            f"unknown key {kinds[1]!r} beside the stage {kind!r}",
            where=_place(entry, kinds[1], where),
            remedy=f"A stage's settings stand inside it, as {kind}: {{{kinds[1]}: ...}}; beside it only `as` and `from`",
        )
    name, wiring, config = entry.get("as", kind), entry.get("from") or {}, entry[kind]
    allowed = isinstance(name, str) and name and not name.startswith(".") and set(name) <= _NAME_CHARACTERS
    if not allowed or name == "old":
        raise ConfigError(
            f"{name!r} cannot be a folder's name",
            where=_place(entry, "as", where),
            remedy="Use letters, digits, - and _ (`old` is taken)",
        )
    if not isinstance(wiring, Mapping):
        raise ConfigError("expected roles", where=_place(entry, "from", where), remedy="Write `from: {policy: sft}`")
    if config is not None and not isinstance(config, Mapping):
        raise ConfigError(
            f"expected settings, found {config!r}", where=_place(entry, kind, where), remedy=f"Write `{kind}: {{}}`"
        )
    return _Entry(
        str(name), stage, config or Located(place=_place(entry, kind, where)), wiring, _place(entry, kind, where)
    )


_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


def _wire(entry: _Entry, earlier: Sequence[PlannedStage]) -> dict[str, str | Path]:
    """Where each role's bundle comes from: as `from` says, else the latest stage of the best kind."""
    roles = entry.stage.inputs
    for role in entry.wiring:
        if role not in roles:
            raise ConfigError(
                f"the stage {entry.stage.name!r} takes no {role!r}",
                where=_place(entry.wiring, role, entry.place),
                remedy=suggestion(role, list(roles)),
            )
    inputs: dict[str, str | Path] = {}
    for role, wanted in roles.items():
        if role in entry.wiring:
            inputs[role] = _named_input(entry, role, entry.wiring[role], earlier)
            continue
        found = next(
            (stage.name for kind in wanted.stages for stage in reversed(earlier) if stage.stage.name == kind),
            None,
        )
        if found is not None:
            inputs[role] = found
        elif wanted.required:
            raise ConfigError(
                f"the stage {entry.name!r} needs a {role}, and no stage before it makes one",
                where=entry.place,
                remedy=f"Put a {wanted.stages[0]} stage before it, or name a bundle: `from: {{{role}: DIR}}`",
            )
    if not inputs and roles and not entry.stage.alone:
        raise ConfigError(
            f"the stage {entry.name!r} has nothing to work on",
            where=entry.place,
            remedy="Put one of these before it: " + ", ".join(sorted({k for r in roles.values() for k in r.stages})),
        )
    return inputs


def _named_input(entry: _Entry, role: str, value: Any, earlier: Sequence[PlannedStage]) -> str | Path:
    place = _place(entry.wiring, role, entry.place)
    if not isinstance(value, str):
        raise ConfigError(
            f"expected a stage or a folder for {role}, found {value!r}",
            where=place,
            remedy="Write the name of a stage above it, or a folder",
        )
    names = [stage.name for stage in earlier]
    if value in names:
        return value
    path = Path(value).expanduser()
    if path.is_dir():
        return path
    raise ConfigError(
        f"{value!r} is neither a stage before this one nor a folder", where=place, remedy=suggestion(value, names)
    )
