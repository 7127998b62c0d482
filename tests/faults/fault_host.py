"""Starts `duihua` commands that meet with an accident: a process that has imported torch once and forks for each command.

Why: a command spends two seconds on imports and a fifth of one on a tiny training, and the suite kills some hundreds of them.
A fork has everything imported. It is only safe because this process never ran anything in parallel (OpenMP's threads do not
come along in a fork): it imports, reads lines, and forks.

A request is one line of JSON on standard input: argv (of `duihua`), log (file for its output), root (folder whose file events
count), fault (see `arm`), after (seconds until `signal`, null for never). The answer is one line: the exit code (minus the
number of the signal that ended it), the seconds, and the number of file events.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import itertools
import json
import os
import pkgutil
import resource
import signal
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate")


def on_file_events(root: str, action: Callable[[int], None]) -> None:
    """Call action(n) just before the n-th change of a file or folder below `root`, counted from 1."""
    seen, inside = 0, False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen, inside
        if inside or (event not in CHANGES and not (event == "open" and arguments[2] & WRITING)):
            return
        if isinstance(arguments[0], str | os.PathLike) and os.fspath(arguments[0]).startswith(root):
            inside, seen = True, seen + 1
            action(seen)
            inside = False

    sys.addaudithook(hook)


def arm(fault: dict[str, Any], root: str, events: Path) -> None:
    """Prepare this process for its accident. kind:

    count           none; the number of file events is written down
    kill_event      kill -9 just before the `event`-th change of a file
    signal_event    signal `number` there
    signal_step     signal `number` in the middle of step `step`
    edit_event      the file `path` is given the text `text` there, as an editor would
    full            no file may grow beyond `bytes`: the system refuses the rest of a write, as a full disk does
    read_only       without the rights of root, so that the rights of files count
    gradient        the gradient of the first parameter is `value` in the steps `steps`
    memory          micro-batches of more than `rows` rows do not fit the memory
    clock           the clock of the machine jumps by `days` whenever it is read
    wall_clock      a Trainer that asks this clock: what a correct test of checkpoints must notice
    then            (beside any of them) a second accident of these
    forget          a batch source that does not take up its place: what a correct comparison must notice
    """
    if "then" in fault:
        arm(fault["then"], root, events)
    kind = fault.get("kind", "count")
    if kind in ("kill_event", "signal_event"):
        number = signal.SIGKILL if kind == "kill_event" else fault["number"]
        on_file_events(root, lambda seen: os.kill(os.getpid(), number) if seen == fault["event"] else None)
    elif kind == "edit_event":
        edited = Path(fault["path"])
        on_file_events(
            root, lambda seen: (edited.write_text(fault["text"]), None)[1] if seen == fault["event"] else None
        )
    elif kind == "count":
        on_file_events(root, lambda seen: (events.write_text(str(seen)), None)[1])
    elif kind == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault["bytes"], fault["bytes"]))
    elif kind == "read_only":
        drop_capabilities()
    elif kind == "clock":
        jump(fault["days"])
    elif kind == "wall_clock":
        believe_the_wall_clock()
    else:
        in_training(kind, fault)


def in_training(kind: str, fault: dict[str, Any]) -> None:
    """Accidents inside a step of the Trainer."""
    import torch

    from duihua.training.trainer import Trainer

    real = Trainer.step

    def step(self: Any) -> dict[str, float]:
        number = self.step_number + 1
        if kind == "signal_step" and number == fault["step"]:
            os.kill(os.getpid(), fault["number"])
        if kind == "gradient" and number in fault["steps"]:
            first = next(weight for weight in self.network.parameters() if weight.requires_grad)
            hook = first.register_hook(lambda gradient: torch.full_like(gradient, float(fault["value"])))
            try:
                return real(self)
            finally:
                hook.remove()
        if kind == "memory" and not hasattr(self.loss, "roomy"):
            self.loss = Cramped(self.loss, fault["rows"], fault.get("python", False))
        return real(self)

    class Cramped:
        """A loss on a machine with little memory. It fails after the forward pass, when a rollout has been told of it."""

        def __init__(self, roomy: Any, rows: int, python: bool) -> None:
            self.roomy, self.rows = roomy, rows
            self.error: Exception = (
                MemoryError() if python else torch.OutOfMemoryError("CUDA out of memory. Tried to...")
            )

        def __call__(self, network: Any, batch: dict[str, Any]) -> Any:
            parts = self.roomy(network, batch)
            if next(len(batch[name]) for name in ("token_ids", "source") if name in batch) > self.rows:
                raise self.error
            return parts

    if kind == "forget":
        init = Trainer.__init__

        def forgetful(self: Any, network: Any, loss: Any, batches: Any, **rest: Any) -> None:
            batches.load_state_dict = lambda state: None
            init(self, network, loss, batches, **rest)

        Trainer.__init__ = forgetful  # type: ignore[method-assign]
    else:
        Trainer.step = step  # type: ignore[method-assign]


def jump(days: float) -> None:
    """From now on `time.time` is so many days further at each look, or back; what measures spans must not use it."""
    real, looks = time.time, itertools.count(1)
    time.time = lambda: real() + 86_400 * days * next(looks)


def believe_the_wall_clock() -> None:
    """Give the Trainer `time.time`, as it now is, for the clock that does not jump."""
    from duihua.training import trainer

    trainer.time = types.SimpleNamespace(monotonic=time.time)  # type: ignore[assignment]


def drop_capabilities() -> None:
    """Give up all of root's exceptions (capset(2)), so that a folder that is not writable is not; no change for others."""
    if os.geteuid() != 0:
        return
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(header, nothing) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def child(request: dict[str, Any]) -> int:
    """What a fork does: the command, with its output in the log."""
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from duihua.cli.main import main

    arm(request["fault"], request["root"], Path(request["log"] + ".events"))
    code = main(request["argv"])
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def serve() -> None:
    """Answer requests until standard input ends."""
    for line in sys.stdin:
        request = json.loads(line)
        began = time.monotonic()
        process = os.fork()
        if process == 0:
            code = 70
            try:
                code = child(request)
            except BaseException:
                import traceback

                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(code)
        code = waited(process, request)
        events = Path(request["log"] + ".events")
        counted = events.read_text() if events.exists() else ""  # empty too where the kill fell into the writing of it
        count = int(counted or 0)
        print(json.dumps({"code": code, "seconds": time.monotonic() - began, "events": count}), flush=True)


def waited(process: int, request: dict[str, Any]) -> int:
    """The exit code of a fork; it is sent its signal when its time has come, and ended after two minutes."""
    began = time.monotonic()
    sent = request.get("after") is None
    while True:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        spent = time.monotonic() - began
        if not sent and spent >= request["after"]:
            os.kill(process, request["signal"])
            sent = True
        if spent > 120:
            os.kill(process, signal.SIGKILL)
        time.sleep(0.002)


def prepare() -> None:
    """Import everything that a command imports on its way, and keep the garbage collector of a fork away from it, which would
    copy whatever it looks at."""
    import torch
    import torch._dynamo

    import duihua.data
    import duihua.report
    from duihua.cli.main import VERBS
    from duihua.config import build
    from duihua.stages import STAGES

    torch.set_num_threads(1)
    for package in (duihua.data, duihua.report):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(found.name)
    for stage in STAGES.values():
        importlib.import_module(stage.module)
        importlib.import_module(VERBS[stage.name][0])
        build(stage.config_class(), {}, "")
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    prepare()
    print("ready", flush=True)
    serve()
