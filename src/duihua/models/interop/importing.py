"""A Hugging Face directory becomes one of our bundles, after everything in it was checked.

Why import at all, when every command reads such a directory as it lies: to look once, closely, before hours of training;
to have the terms of the model in its card, where each stage that starts from it inherits them; and to settle the chat
template of a base model that comes without one. Weights keep the number format in which they came, bit for bit.

A base model without a chat template gets ChatML, with the nearest control tokens that its tokenizer has: its own
`<|im_start|>` and `<|im_end|>` (Qwen's base models), else its end-of-text token in both places (GPT-2). New tokens
would need new rows in the embedding, which nobody has trained.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from duihua.errors import ConfigError
from duihua.files import read_json, write_json
from duihua.models.bundle import Bundle, load_bundle, save_bundle
from duihua.models.decoder import parameter_count
from duihua.models.interop.exporting import refuse_existing, written_aside
from duihua.models.interop.registry import read_config, tensor_layout
from duihua.models.interop.stored import DTYPE_NAMES, StoredTensor, stored_tensors
from duihua.models.model_card import ModelCard
from duihua.models.weights import DTYPES, read_object
from duihua.text.chat_template import ChatTemplate
from duihua.text.chatml import IM_END, IM_START, chatml
from duihua.text.tokenizer import AbsentTokenizer, Tokenizer

KEPT_SAMPLING = ("do_sample", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "max_new_tokens")
LICENCE_FILES = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")
PRESET_NAMES = {"openai-gpt": "gpt1", "duihua": "fast"}  # model_type -> our name, where it is another
QUOTED = 400  # characters of a licence file that go into the terms; the file itself is copied


@dataclass(frozen=True)
class FoundModel:
    """What a directory holds.

    dtype: of the stored weights ("mixed" where they differ). left_out: stored tensors that the network has no use for.
    tokenizer: its kind, or why there is none. chat_template: "its own", what is written in its place, or "none".
    """

    directory: str
    family: str
    architecture: str
    kind: str
    parameters: int
    context: int
    vocabulary_rows: int
    tokenizer_ids: int | None
    dtype: str
    weight_files: int
    tokenizer: str
    chat_template: str
    left_out: list[str]
    licence: str
    licence_files: list[str]
    notes: list[str] = field(default_factory=list)

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def check_directory(directory: Path, chat_template: str = "") -> tuple[Bundle, FoundModel]:
    """Load `directory` whole, with all checks, and say what is there. chat_template: see `import_directory`."""
    config = read_object(directory / "config.json")
    model_config, kind, family = read_config(config, str(directory / "config.json"))
    stored = list(stored_tensors(directory))
    dtype = _dtype(stored)
    bundle = load_bundle(directory, dtype=dtype if dtype in DTYPES else "float32")
    places = {place.name for place in tensor_layout(family, model_config, kind)}
    left_out = sorted(t.name for t in stored if t.name not in places and family.prefix + t.name not in places)
    notes = []
    tokenizer = bundle.tokenizer
    described, template = _settle_template(tokenizer, chat_template)
    if isinstance(tokenizer, AbsentTokenizer):
        described_tokenizer = f"none: {tokenizer.reason}"
        ids = None
    else:
        tokenizer.chat_template = template
        ids = tokenizer.vocabulary_size
        controls = len(tokenizer.special_ids)
        described_tokenizer = f"byte-level BPE, {ids:,} ids, {controls} of them control tokens"
        normaliser = tokenizer.specification().get("normalizer")
        if normaliser:
            described_tokenizer += f", normaliser {normaliser.get('type')}"
        if template is None:
            notes.append("chat, sft, ppo and serve need a chat template: give one with --chat-template FILE")
    pickles = sorted(file.name for form in ("*.bin", "*.pt", "*.pth", "*.ckpt") for file in directory.glob(form))
    if pickles:
        notes.append(f"not opened, because a pickle can run any program: {', '.join(pickles)}")
    licence, files = read_licence(directory)
    named = config.get("architectures") or [""]
    found = FoundModel(
        directory=str(directory),
        family=PRESET_NAMES.get(family.name, family.name),
        architecture=str(named[0]) if isinstance(named, list) else "",
        kind=bundle.kind,
        parameters=parameter_count(bundle.network),
        context=bundle.config.context,
        vocabulary_rows=bundle.config.vocabulary_size,
        tokenizer_ids=ids,
        dtype=dtype,
        weight_files=len({tensor.file for tensor in stored}),
        tokenizer=described_tokenizer,
        chat_template=described,
        left_out=left_out,
        licence=licence,
        licence_files=[file.name for file in files],
        notes=notes,
    )
    return bundle, found


def import_directory(directory: Path, output: Path, chat_template: str = "", name: str = "") -> FoundModel:
    """Check `directory` and write it as a bundle to the new directory `output`.

    chat_template: "" for its own, or ChatML where it has none; "none" for none; "chatml" for ChatML in any case; a path
    for that file. name: of the model in the terms, the directory's where empty. Raises BundleError for whatever is wrong
    with the directory, DuihuaError where `output` exists already or cannot be written.
    """
    refuse_existing(output)
    bundle, found = check_directory(directory, chat_template)
    name = name or directory.resolve().name
    terms = bundle.terms or [_terms(name, found)]
    card = ModelCard(
        title=f"{name}, imported",
        stage="import",
        description=f"The weights of {name}, a {found.family} model that was not trained by duihua, unchanged.",
        terms=terms,
        prompts=bundle.prompts,
    )
    dtype = found.dtype if found.dtype in DTYPES else "float32"
    with written_aside(output) as aside:
        save_bundle(aside, bundle.network, bundle.tokenizer, card, dtype, **_normalisation(bundle))
        _keep_sampling(directory, aside)
        for file in licence_files(directory):
            shutil.copyfile(file, aside / file.name)
    return found


# -- the chat template ------------------------------------------------------------------------------------------------


def _settle_template(tokenizer: Tokenizer, wish: str) -> tuple[str, str | None]:
    """What is said of the template, and its source."""
    if isinstance(tokenizer, AbsentTokenizer):
        if wish not in ("", "none"):
            raise ConfigError(
                "needs a tokenizer, and this directory has none",
                where="--chat-template",
                remedy="Copy its tokenizer.json there, or leave --chat-template out",
            )
        return "none", None
    if wish == "none":
        return "none, as asked for", None
    if wish not in ("", "chatml"):
        file = Path(wish)
        if not file.is_file():
            raise ConfigError(f"no such file: {wish}", where="--chat-template", remedy="Name a jinja file")
        source = file.read_text(encoding="utf-8")
        _try_template(tokenizer, source)
        return f"from {file.name}", source
    own = tokenizer.chat_template
    if own is not None and not wish:
        _try_template(tokenizer, own)
        return "its own", own
    if {IM_START, IM_END} <= tokenizer.special_tokens.keys():
        return f"ChatML with {IM_START} and {IM_END}", chatml()
    end = tokenizer.token_name("eos_token") or "<|endoftext|>"
    if end in tokenizer.special_tokens:
        start = IM_START if IM_START in tokenizer.special_tokens else end
        return f"ChatML with {start} and {end}", chatml(start, end)
    if wish:
        raise ConfigError(
            "the tokenizer has no control token that could end a turn",
            where="--chat-template",
            remedy="Give a template of your own: --chat-template FILE",
        )
    return "none", None


def _try_template(tokenizer: Tokenizer, source: str) -> None:
    """BundleError when it is broken."""
    before, tokenizer.chat_template = tokenizer.chat_template, source
    try:
        ChatTemplate(tokenizer)
    finally:
        tokenizer.chat_template = before


# -- weights ----------------------------------------------------------------------------------------------------------


def _dtype(stored: list[StoredTensor]) -> str:
    found = {DTYPE_NAMES[tensor.dtype] for tensor in stored if tensor.dtype in DTYPE_NAMES}
    return found.pop() if len(found) == 1 else "mixed" if found else "none"


def _normalisation(bundle: Bundle) -> dict[str, Any]:
    return {"normalisation": bundle.normalisation} if bundle.normalisation else {}


def _keep_sampling(source: Path, target: Path) -> None:
    """The model's own sampling settings, which chat starts from."""
    theirs, ours = source / "generation_config.json", target / "generation_config.json"
    if theirs.is_file() and ours.is_file():
        found = read_json(theirs)
        if isinstance(found, Mapping):
            write_json(ours, read_json(ours) | {key: found[key] for key in KEPT_SAMPLING if found.get(key) is not None})


# -- the licence ------------------------------------------------------------------------------------------------------


def licence_files(directory: Path) -> list[Path]:
    """LICENSE, NOTICE and their like."""
    return [file for form in LICENCE_FILES for file in sorted(directory.glob(form)) if file.is_file()]


def read_licence(directory: Path) -> tuple[str, list[Path]]:
    """What README.md's header names as licence, or the first lines of the licence file; empty where neither is there."""
    files = licence_files(directory)
    header = _readme_header(directory / "README.md")
    named = header.get("license_name") or header.get("license")
    if isinstance(named, list):
        named = " or ".join(map(str, named))
    if named:
        link = header.get("license_link")
        return (f"{named} ({link})" if isinstance(link, str) and "://" in link else str(named)), files
    if files:
        lines = files[0].read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in lines if line.strip()), files[0].name), files
    return "", files


def _readme_header(file: Path) -> dict[str, Any]:
    """The YAML block at the head of a model card; empty where there is none that can be read."""
    if not file.is_file():
        return {}
    block = re.match(r"---\r?\n(.*?)\r?\n---", file.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    try:
        found = yaml.safe_load(block[1]) if block else {}
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def _terms(name: str, found: FoundModel) -> dict[str, str]:
    """The model as one source of what is made from it."""
    directory = Path(found.directory)
    text = ""
    if found.licence_files:
        text = (directory / found.licence_files[0]).read_text(encoding="utf-8", errors="replace")
    quoted = " ".join(text.split())
    note = "weights of a model that was not trained by duihua"
    if quoted:
        more = "..." if len(quoted) > QUOTED else ""
        note += f"; {found.licence_files[0]}: {quoted[:QUOTED]}{more}"
    rights = re.search(r"Copyright[^\n]*\d{4}[^\n]*", text)
    return {
        "name": name,
        "language": "",
        "licence": found.licence or "not stated in its directory",
        "homepage": "",
        "attribution": rights[0].strip() if rights else "",
        "note": note,
    }
