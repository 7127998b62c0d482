"""`duihua VERB ...`: finds the verb, runs it, and turns what goes wrong into one line and an exit code.

Why a table of names: importing torch takes seconds, and `duihua --help` should not. A verb's module is imported only when
the verb is known; it has `main(argv) -> int`.

Exit codes: 0 done; 1 the command ran and found something wrong; 2 the user can put it right (one line says how);
130 stopped by Ctrl-C. A traceback always means a fault of ours.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence

from duihua import console
from duihua.cores import share_the_cores
from duihua.errors import ConfigError, DuihuaError
from duihua.version import __version__

VERBS: dict[str, tuple[str, str]] = {
    "run": ("duihua.cli.run", "run a recipe: every stage from text to chat model, with a report"),
    "watch": ("duihua.cli.watch", "show how a training goes, or several side by side, while they run"),
    "chat": ("duihua.cli.chat", "talk to a model in the terminal"),
    "serve": ("duihua.cli.serve", "serve the chat page and an OpenAI-compatible API"),
    "data": ("duihua.cli.data", "list, get, show and check sources of data"),
    "tokenizer": ("duihua.cli.stage", "stage: learn a byte-level BPE vocabulary from text"),
    "pretrain": ("duihua.cli.stage", "stage: train a decoder on running text, from random weights"),
    "recurrent": ("duihua.cli.stage", "stage: train a recurrent language model (RNN, LSTM or GRU)"),
    "sft": ("duihua.cli.stage", "stage: teach a base model to answer in conversations"),
    "reward": ("duihua.cli.reward", "train a reward model on pairs of replies, score with it, examine it"),
    "ppo": ("duihua.cli.stage", "stage: train a chat model against a reward model"),
    "dpo": ("duihua.cli.stage", "stage: train a chat model on preferences directly, without a reward model"),
    "grpo": ("duihua.cli.stage", "stage: train a chat model on groups of its own replies (GRPO, RLOO)"),
    "best-of-n": ("duihua.cli.best_of_n", "several replies to each prompt, the best by a reward model"),
    "rejection_sampling": ("duihua.cli.stage", "stage: fine-tune a chat model on the best of its own replies"),
    "feedback": (
        "duihua.cli.feedback",
        "from votes and corrections of the chat page to a new version of the model, compared blind",
    ),
    "classify": ("duihua.cli.classify", "stage: teach a base model to classify texts, pairs and choices"),
    "translate": ("duihua.cli.translate", "train a translator, translate with it, score it"),
    "bag_of_words": (
        "duihua.cli.bag_of_words",
        "stage: classify texts by the words that they hold, without a network",
    ),
    "ngram": ("duihua.cli.ngram", "stage: count n-grams of text: a language model without a network"),
    "evaluate": (
        "duihua.cli.evaluate",
        "perplexity, accuracy, BLEU, tasks, comparisons; or the stage that measures a run",
    ),
    "compare": ("duihua.cli.stage", "stage: let all models of a run meet on the same prompts, judged blind"),
    "import": ("duihua.cli.import_", "check a Hugging Face model directory and write it as a bundle"),
    "export": ("duihua.cli.export", "write a model for other programs: Hugging Face directory or GGUF file"),
    "merge": ("duihua.cli.merge", "add a LoRA adapter to the weights of a model"),
    "tokens": ("duihua.cli.tokens", "show sentences as tokens: byte pairs, characters, words"),
    "inspect": ("duihua.cli.inspect", "show what a model consists of"),
    "figures": ("duihua.cli.figures", "draw what goes on inside a model: attention, masks, queries and keys, curves"),
    "doctor": ("duihua.cli.doctor", "say what is wrong with this machine, a reward model or a PPO run, and what to do"),
}

INTERRUPTED = 130
WRONG = 2

REMEDIES = {
    errno.ENOSPC: "Free some space or choose another folder",
    errno.EDQUOT: "Free some space or choose another folder",
    errno.EACCES: "Check the rights of the file, or choose another folder",
    errno.EPERM: "Check the rights of the file, or choose another folder",
    errno.EROFS: "Choose a folder that can be written to",
    errno.ENOTDIR: "Check the path",
    errno.EISDIR: "Check the path",
    errno.ENAMETOOLONG: "Choose a shorter name",
    errno.EADDRINUSE: "Choose another port with --port",
}


def help_text() -> str:
    """What `duihua --help` prints."""
    width = max(map(len, VERBS))
    lines = [f"  {verb.ljust(width)}  {about}" for verb, (_, about) in VERBS.items()]
    return "\n".join(
        [
            "duihua (对话): train, align, evaluate and talk to your own chat model, in English and Chinese",
            "",
            "usage: duihua VERB [options]      duihua VERB --help      duihua --version",
            "",
            *lines,
            "",
            "Every verb takes --json: one JSON object on standard output, everything else on standard error.",
            "Start here: duihua data get starter; duihua run recipes/quickstart.yaml; duihua serve runs/quickstart",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    share_the_cores()  # before any verb imports torch
    arguments = list(sys.argv[1:] if argv is None else argv)
    with console.json_output("--json" in arguments):
        try:
            code = _dispatch(arguments)
            sys.stdout.flush()
        except DuihuaError as error:
            return _fail(error)
        except KeyboardInterrupt:
            return INTERRUPTED
        except BrokenPipeError:
            return _broken_pipe()
        except OSError as error:
            if error.errno not in REMEDIES:
                raise
            return _fail(
                DuihuaError(
                    (error.strerror or str(error)).lower(),
                    where=str(error.filename or ""),
                    remedy=REMEDIES[error.errno],
                )
            )
        except RuntimeError as error:
            if type(error).__name__ != "OutOfMemoryError":  # torch's own, which must not be imported for this
                raise
            return _fail(
                DuihuaError("the device has not enough memory", remedy="Make the micro-batch or the model smaller")
            )
        else:
            return code


def _dispatch(arguments: list[str]) -> int:
    words = [word for word in arguments if word != "--json"]
    if not words:
        if console.json_mode():
            return _describe()
        print(help_text())
        return WRONG
    first = words[0]
    if first in ("-h", "--help", "help"):
        if len(words) > 1 and (named := _verb(words[1])):
            return _run_verb(named, ["--help"])
        if console.json_mode():
            return _describe()
        print(help_text())
        return 0
    if first in ("-V", "--version", "version"):
        if console.json_mode():
            console.emit_json({"version": __version__})
        else:
            print(f"duihua {__version__}")
        return 0
    verb = _verb(first)
    if not verb:
        from duihua.config.mapping import suggestion

        raise DuihuaError(
            f"there is no command {first!r}", remedy=f"{suggestion(first, list(VERBS))}; `duihua --help` lists them all"
        )
    rest = list(arguments)
    rest.remove(first)
    return _run_verb(verb, rest)


def _verb(word: str) -> str:
    """The verb that a word names, hyphens and underscores being one (`bag-of-words`); "" for none."""
    return next((verb for verb in VERBS if verb.replace("_", "-") == word.replace("_", "-")), "")


def _run_verb(verb: str, arguments: list[str]) -> int:
    """Import the verb's module and call it; a parser that leaves by SystemExit gives its code."""
    refuse_ranks(verb)
    module = importlib.import_module(VERBS[verb][0])
    try:
        if VERBS[verb][0] == "duihua.cli.stage":
            return int(module.main([verb, *arguments]))
        return int(module.main(arguments))
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
            return 1
        return stop.code or 0


def refuse_ranks(verb: str) -> None:
    """Raise ConfigError where torchrun has started several processes for something that only one can do."""
    from duihua.stages import STAGES
    from duihua.training.launch import launched_ranks

    able = [name for name, stage in STAGES.items() if stage.ranks]
    count = launched_ranks()
    if count > 1 and verb not in able:
        raise ConfigError(
            f"`duihua {verb}` cannot be spread over {count} ranks",
            where="torchrun",
            remedy=f"Start it without torchrun; several ranks can train {', '.join(able)}",
        )


def _describe() -> int:
    console.emit_json({"version": __version__, "verbs": {verb: about for verb, (_, about) in VERBS.items()}})
    return 0


def _fail(error: DuihuaError) -> int:
    """One line on standard error, and under --json the same as an object on standard output."""
    try:
        print(f"duihua: {error}", file=sys.stderr, flush=True)
        if console.json_mode():
            console.emit_json({"error": {"problem": error.problem, "where": error.where, "remedy": error.remedy}})
    except BrokenPipeError:
        return _broken_pipe()
    return WRONG


def _broken_pipe() -> int:
    """The reader of our output has left (`duihua ... | head`): leave quietly, as other tools do."""
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):  # so that Python's own flush at exit does not complain
        try:
            stream.flush()
        except (BrokenPipeError, ValueError):
            os.dup2(silence, stream.fileno())
    os.close(silence)
    return 128 + 13


if __name__ == "__main__":
    sys.exit(main())
