"""The models of one server: which bundles a path means, loading them in the background, finding one by name.

A run's folder means all its chat models: `base` (pre-training), `sft`, `ppo`, in the order of training, the last the
default; and its classifiers and translators, which are kept apart, because they answer routes of their own. A folder with
versions (`duihua feedback`) means all of them, the promoted one being the last and so the default. Loading happens in a
thread, so that /health can say 503 and the page can say that it is loading.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from duihua import console
from duihua.errors import BundleError, DuihuaError
from duihua.files import read_json
from duihua.models.versions import bundle_of, has_versions, read_versions
from duihua.serving.api_errors import ApiError
from duihua.serving.config import ServingConfig
from duihua.serving.served_classifier import ServedClassifier
from duihua.serving.served_model import EngineModel, ServedModel
from duihua.serving.served_translator import ServedTranslator

RUN_STAGES = {"pretrain": "base", "base": "base"} | {
    name: name for name in ("sft", "rejection_sampling", "dpo", "grpo", "ppo")
}
"""Folders of a run that hold chat models, in the order of training, and what they are called."""
TRANSLATORS = ("duihua-transformer", "duihua-recurrent-translator")
"""What config.json of a translator calls its model_type."""
Served = ServedModel | ServedClassifier | ServedTranslator


@dataclass(frozen=True)
class ModelSource:
    """A bundle to serve and its name in the API."""

    name: str
    directory: Path


def find_sources(paths: Sequence[str | Path]) -> list[ModelSource]:
    """The bundles that `paths` (bundles, or folders of runs) mean, each with a name of its own, in order.

    Raises BundleError for a path that is neither.
    """
    sources: list[ModelSource] = []
    for path in map(Path, paths):
        if (path / "config.json").is_file():
            sources.append(ModelSource(_name_of(path.resolve()), path))
            continue
        if has_versions(path) or bundle_of(path) != path:
            sources += _versions(path)
            continue
        found = [ModelSource(name, path / stage) for stage, name in RUN_STAGES.items() if _is_policy(path / stage)]
        chats = bool(found)  # of a run with chat models, the other folders are looked at for what is none
        for child in sorted(_children(path)):
            other = _is_classifier(child) or _is_translator(child)
            if child.name not in RUN_STAGES and (other or (not chats and _is_policy(child))):
                found.append(ModelSource(_name_of(path.resolve() / child.name), child))
        if not found:
            problem = "holds no model" if path.is_dir() else "no such folder"
            raise BundleError(
                problem, where=str(path), remedy="Give a bundle (a folder with config.json) or the folder of a run"
            )
        sources.extend(found)
    return _with_distinct_names(sources)


def _name_of(bundle: Path) -> str:
    """A stage's model as RUN_STAGES has it, a translator of a run, whose stage says nothing about it, by the run's name."""
    return bundle.parent.name if bundle.name == "translate" else RUN_STAGES.get(bundle.name, bundle.name)


def _versions(path: Path) -> list[ModelSource]:
    """All versions of a folder, the promoted one last; or the one that the path names. An old one that is gone is left out."""
    if not has_versions(path):
        return [ModelSource(path.name, bundle_of(path))]
    known = read_versions(path)
    found = []
    for version in known.made():
        try:
            found.append(ModelSource(version.name, known.bundle(version.name)))
        except BundleError as error:
            if version.name == known.promoted:
                raise
            console.warn(str(error))
    return found


def _children(path: Path) -> list[Path]:
    return [child for child in path.iterdir() if child.is_dir()] if path.is_dir() else []


def _is_policy(directory: Path) -> bool:
    """Whether a folder looks like a chat model (and not like a reward model or a tokenizer)."""
    if not (directory / "config.json").is_file() or not any(directory.glob("*.safetensors")):
        return False
    config = read_json(directory / "config.json")
    architectures = config.get("architectures") if isinstance(config, dict) else None
    return isinstance(architectures, list) and any(str(name).endswith("ForCausalLM") for name in architectures)


def _is_classifier(directory: Path) -> bool:
    """Whether a folder holds a classifier, by the file that only they have."""
    return (directory / "config.json").is_file() and (directory / "task.json").is_file()


def _is_translator(directory: Path) -> bool:
    """Whether a folder holds a translator, by the type of its model."""
    if not (directory / "config.json").is_file():
        return False
    config = read_json(directory / "config.json")
    return isinstance(config, dict) and config.get("model_type") in TRANSLATORS


def _with_distinct_names(sources: Sequence[ModelSource]) -> list[ModelSource]:
    """Two bundles of one name are told apart by their parent's, and by a number if that is not enough."""
    names = [source.name for source in sources]
    renamed, taken = [], set[str]()
    for source in sources:
        name = source.name
        if names.count(name) > 1:
            name = f"{source.directory.resolve().parent.name}/{name}"
        unique, number = name, 2
        while unique in taken:
            unique, number = f"{name}-{number}", number + 1
        taken.add(unique)
        renamed.append(ModelSource(unique, source.directory))
    return renamed


def load_model(source: ModelSource, config: ServingConfig) -> Served:
    """Open a bundle: a classifier, a translator, or a chat model whose engine is started."""
    if _is_translator(source.directory):
        from duihua.engine.translation_model import TranslationModel

        return ServedTranslator(source.name, TranslationModel.load(source.directory, config.device), config.queue)
    if not _is_classifier(source.directory):
        return load_engine_model(source, config)
    from duihua.engine.classifier_model import ClassifierModel

    return ServedClassifier(source.name, ClassifierModel.load(source.directory, config.device), config.queue)


def load_engine_model(source: ModelSource, config: ServingConfig) -> ServedModel:
    """Open a bundle and start its engine."""
    from duihua.engine.chat_model import ChatModel

    return EngineModel(source.name, ChatModel.load(source.directory, config.device, config.slots), config.queue)


class Models:
    """Models by name. `start` returns at once; `state` says how loading goes."""

    def __init__(self, loaders: Sequence[Callable[[], Served]]) -> None:
        self._loaders = loaders
        self._models: dict[str, ServedModel] = {}
        self._classifiers: dict[str, ServedClassifier] = {}
        self._translators: dict[str, ServedTranslator] = {}
        self.state: Literal["loading", "ready", "failed"] = "loading"
        self.error: DuihuaError | None = None
        self._lock = threading.Lock()
        self._closed = False

    def start(self, when_done: Callable[[], None] = lambda: None) -> None:
        """Load in a thread of its own; `when_done` is called there at the end, loaded or failed."""
        threading.Thread(target=self._load, args=(when_done,), name="duihua-load", daemon=True).start()

    def _load(self, when_done: Callable[[], None]) -> None:
        try:
            for load in self._loaders:
                model = load()
                if isinstance(model, ServedClassifier):
                    self._classifiers[model.card.name] = model
                    continue
                if isinstance(model, ServedTranslator):
                    self._translators[model.card.name] = model
                    continue
                with self._lock:
                    if self._closed:
                        model.close(0.0)
                        return
                    self._models[model.card.name] = model
            self.state = "ready"
        except DuihuaError as error:
            self.error, self.state = error, "failed"
        except Exception as error:
            self.error, self.state = (
                DuihuaError(
                    f"loading failed: {type(error).__name__}: {error}",
                    remedy="The traceback on the server's console says where; check the model with `duihua inspect DIR`",
                ),
                "failed",
            )
            raise
        finally:
            when_done()

    def all(self) -> list[ServedModel]:
        """The chat models that are loaded, in order."""
        return list(self._models.values())

    def classifiers(self) -> list[ServedClassifier]:
        """The classifiers that are loaded, in order."""
        return list(self._classifiers.values())

    def translators(self) -> list[ServedTranslator]:
        """The translators that are loaded, in order."""
        return list(self._translators.values())

    @property
    def default(self) -> ServedModel | None:
        """The last: of a run, the most trained."""
        models = self.all()
        return models[-1] if models else None

    def get(self, name: str) -> ServedModel:
        """The model of that name; ApiError 503 while loading, 404 when there is none."""
        if self.state == "loading":
            raise ApiError(503, "The models are still loading.", code="loading")
        if name in self._classifiers:
            raise ApiError(
                400,
                "This model classifies and writes no text: POST /v1/classifications.",
                param="model",
                code="model_is_a_classifier",
            )
        if name in self._translators:
            raise ApiError(
                400,
                "This model translates and does not chat: POST /v1/translations.",
                param="model",
                code="model_is_a_translator",
            )
        if name not in self._models:
            known = ", ".join(self._models)
            raise ApiError(404, f"There is no such model. Known: {known}.", param="model", code="model_not_found")
        return self._models[name]

    def translates(self, name: str) -> bool:
        """Whether a translator of that name is loaded; of no name: whether there are translators and no chat models."""
        return name in self._translators or (not name and bool(self._translators) and not self._models)

    def classifier(self, name: str) -> ServedClassifier:
        """The classifier of that name; ApiError 503 while loading, 400 for a chat model, 404 when there is none."""
        if self.state == "loading":
            raise ApiError(503, "The models are still loading.", code="loading")
        if name in self._models:
            raise ApiError(
                400,
                "This model writes text and has no classes: POST /v1/chat/completions.",
                param="model",
                code="model_is_no_classifier",
            )
        if name not in self._classifiers:
            known = ", ".join(self._classifiers) or "none"
            raise ApiError(404, f"There is no such classifier. Known: {known}.", param="model", code="model_not_found")
        return self._classifiers[name]

    def translator(self, name: str) -> ServedTranslator:
        """The translator of that name; ApiError 503 while loading, 400 for another kind of model, 404 when there is none."""
        if self.state == "loading":
            raise ApiError(503, "The models are still loading.", code="loading")
        if name in self._models or name in self._classifiers:
            raise ApiError(400, "This model does not translate.", param="model", code="model_is_no_translator")
        if name not in self._translators:
            known = ", ".join(self._translators) or "none"
            raise ApiError(404, f"There is no such translator. Known: {known}.", param="model", code="model_not_found")
        return self._translators[name]

    def close(self, drain_seconds: float) -> None:
        """Stop every engine."""
        with self._lock:
            self._closed = True
        for model in self.all():
            model.close(drain_seconds)
