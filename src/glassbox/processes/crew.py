"""This process among those that carry a run out together, and the store through which they speak.

Process 0 carries the recipe out. Stages that train are done by all: it tells the others which, they do the same with
the same folders, and the group for their collectives lasts as long as the stage. Until then the others look at the
store now and then: no collective waits for hours of curation. The first process that fails says why in the store and
to the user; the others leave in silence with its exit code.
"""

import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

from glassbox.errors import GlassboxError, IntegrityError, Interrupted, Lost, RequestError
from glassbox.ledger.runner import StageFunction
from glassbox.ledger.workspace import Artefact, Inputs, Workspace
from glassbox.processes.host import FAILED, LAUNCHER, LISTENER, SINCE
from glassbox.recipe.base import Stage
from glassbox.recipe.schema import KINDS
from glassbox.train.parallel.ranks import open_group

MEET = timedelta(minutes=10)
"""How long a process tries to reach the store."""
LOOK = 0.2
"""Seconds between looks at the store."""
GRACE = 30.0
"""Seconds that process 0 has to leave a stage by itself, and write down why, after another has failed (it may wait in a
collective); and that all have after a request to stop."""

STANDS = (1, 2, 3)
"""Exit codes that a new start would only come to again."""
KINDS_OF_ERROR = {kind.exit_code: kind for kind in (GlassboxError, RequestError, IntegrityError, Interrupted, Lost)}


@dataclass(frozen=True)
class Failure:
    """The first thing that went wrong in any process."""

    rank: int
    code: int
    sentence: str


@dataclass
class Crew:
    """The processes that were started together, as one of them sees them."""

    rank: int
    count: int
    job: dist.Store
    """What is known of the whole run; outlives a restart under torchrun."""
    store: dist.Store
    """What is known of this start alone; process 0 keeps it."""
    aside: dist.Store
    """The same by a connection of its own, for a thread: one that waits locks the others out."""
    since: float
    """When the run was first started, in seconds since 1970."""
    launcher: int | None
    """The process that started this one, if it was `host.py`."""
    orders: int = 0
    """Stages done together so far."""

    def exit_code(self, code: int) -> int:
        """What this process ends with where the run ends with `code`."""
        return FAILED if self.launcher and code == GlassboxError.exit_code else code

    def left_alone(self) -> bool:
        """Whether the process that started this one is gone: then it stops as if asked."""
        return self.launcher is not None and os.getppid() != self.launcher

    def leading(self, functions: Mapping[str, StageFunction], together: Sequence[str]) -> dict[str, StageFunction]:
        """Process 0's functions: those of the kinds `together` are carried out by all."""

        def tell_and_do(kind: str) -> StageFunction:
            def run(config: Stage, inputs: Inputs, workspace: Workspace) -> None:
                self.store.set(f"order/{self.orders}", _order(kind, config, inputs, workspace))
                self._do_together(functions[kind], config, inputs, workspace)

            return run

        return {kind: tell_and_do(kind) if kind in together else function for kind, function in functions.items()}

    def follow(self, functions: Mapping[str, StageFunction], stop_requested: Callable[[], bool]) -> None:
        """Every other process's work: the stages that process 0 tells of, until it is done."""
        while (order := self._next_order()) is not None:
            workspace = Workspace(
                Path(order["folder"]),
                order["seed"],
                order["threads"],
                order["device"],
                rank=self.rank,
                stop_requested=stop_requested,
            )
            inputs = Inputs(tuple(Artefact(name, kind, Path(path)) for name, kind, path in order["inputs"]))
            config = KINDS[order["kind"]].model_validate(order["settings"])
            self._do_together(functions[order["kind"]], config, inputs, workspace)

    def _next_order(self) -> dict[str, Any] | None:
        """Wait for process 0's next word; None when it is done. Raises SystemExit when it has failed."""
        key = f"order/{self.orders}"
        while not self.store.check([key]):
            if self.left_alone():
                raise Lost("the process that started this one is gone")
            time.sleep(LOOK)
        order: dict[str, Any] = json.loads(self.store.get(key))
        if "end" not in order:
            return order
        if order["end"]:
            raise SystemExit(order["end"])
        return None

    def _do_together(self, function: StageFunction, config: Stage, inputs: Inputs, workspace: Workspace) -> None:
        number, over = self.orders, threading.Event()
        self.orders += 1
        watch = threading.Thread(target=self._watch, args=(over,), daemon=True)
        watch.start()
        try:
            if self.count > 1:
                place = dist.PrefixStore(f"group/{number}", self.store)
                open_group(workspace.device, store=place, rank=self.rank, world_size=self.count)
            function(config, inputs, workspace)
            self._wait_for_all(f"done/{number}")
            if self.count > 1:
                dist.destroy_process_group()
        except BaseException as error:
            # process 0's runner says the stage itself, and nobody says it of a request to stop
            said = self.rank == 0 or isinstance(error, Interrupted)
            prefix = "" if said else f"stage '{workspace.folder.name}': "
            failure = self.report(error, prefix)
            if failure.rank == self.rank and isinstance(error, (GlassboxError, KeyboardInterrupt)):
                if self.rank and isinstance(error, GlassboxError):
                    raise type(error)(failure.sentence) from error
                raise
            raise KINDS_OF_ERROR[failure.code](failure.sentence) from error
        finally:
            over.set()
            watch.join(GRACE)

    def _wait_for_all(self, key: str) -> None:
        """Come here, and wait until all have: what they still have to write may take its time."""
        self.store.add(key, 1)
        while self.store.add(key, 0) < self.count:
            if self.failure() is not None:
                raise Lost("another process failed")
            time.sleep(LOOK)

    def _watch(self, over: threading.Event) -> None:
        """In a thread of its own: end this process if it still waits for one that has failed; ask it to stop when the
        one that started it is gone."""
        asked = False
        while not over.wait(1.0):
            if self.left_alone() and not asked:
                os.kill(os.getpid(), signal.SIGTERM)
                asked = True
            try:
                failure = _read_failure(self.aside)
            except RuntimeError:  # the store went with process 0
                failure = Failure(0, Lost.exit_code, "")
            if failure is None or failure.rank == self.rank:
                continue
            if not over.wait(LOOK if self.rank and failure.code in STANDS else GRACE):
                with suppress(RuntimeError):
                    self.aside.add("left", 1)
                os._exit(self.exit_code(failure.code))

    def failure(self) -> Failure | None:
        """What went wrong first, if anything did."""
        return _read_failure(self.store)

    def report(self, error: BaseException, prefix: str = "") -> Failure:
        """Say what went wrong here; returns what went wrong first, here or elsewhere."""
        failure = _failure(self.rank, error, prefix)
        try:
            first = Failure(**json.loads(self.store.compare_set("failure", "", json.dumps(asdict(failure)))))
            if first == failure and first.code in STANDS:
                self.job.set("over", str(first.code))
        except RuntimeError:  # the store went with the process that kept it
            return Failure(0, Lost.exit_code, "lost process 0, which keeps what the others meet at")
        return first

    def leave(self, code: int) -> None:
        """Take leave of the others; process 0, which may keep the store, waits for them first."""
        try:
            if self.rank:
                self.store.add("left", 1)
                return
            self.store.set(f"order/{self.orders}", json.dumps({"end": code}))
            until = time.monotonic() + (0 if code == Lost.exit_code else GRACE)  # who is lost does not come
            while self.store.add("left", 0) < self.count - 1 and time.monotonic() < until:
                time.sleep(LOOK / 4)
        except RuntimeError:  # the store is gone, and with it who could be waiting
            return


@contextmanager
def joined() -> Iterator[Crew]:
    """Take this process's place among those that were started together, by torchrun's environment.

    An error leaves as it is from the process where it came first, and as a silent exit with its code from all others.
    """
    crew = _join()
    if crew.rank:
        logging.getLogger("glassbox").setLevel(logging.ERROR)  # one process's warnings are enough
    code = 0
    try:
        if crew.job.check(["over"]):  # another start would only come to the same end
            raise SystemExit(int(crew.job.get("over")))
        yield crew
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
        raise
    except BaseException as error:
        first = crew.report(error)
        code = crew.exit_code(first.code)
        if first.rank != crew.rank or (crew.launcher and lost_contact(error)):  # the launcher knows who was lost
            raise SystemExit(code) from error
        if isinstance(error, GlassboxError):
            error.exit_code = code
        if isinstance(error, (GlassboxError, KeyboardInterrupt)):
            raise
        raise Lost(first.sentence) from error
    finally:
        crew.leave(code)


def _join() -> Crew:
    """Meet the others."""
    rank, count = int(os.environ.pop("RANK")), int(os.environ.pop("WORLD_SIZE"))  # stages of process 0 alone see one
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        job = dist.PrefixStore("glassbox", _store(address, port))
        store = _keep_store(job, address) if rank == 0 else _find_store(job, address)
    else:
        listener = os.environ.pop(LISTENER, None)
        store = _store(address, port, serving=rank == 0, listener=int(listener) if listener else None)
        job = dist.PrefixStore("glassbox", store)
    since = float(job.compare_set("since", "", os.environ.get(SINCE, str(time.time()))))
    launcher = os.environ.get(LAUNCHER)
    aside = store.clone()  # type: ignore[attr-defined]
    return Crew(rank, count, job, store, aside, since, int(launcher) if launcher else None)


def _store(address: str, port: int, serving: bool = False, listener: int | None = None) -> dist.TCPStore:
    return dist.TCPStore(
        address, port, is_master=serving, timeout=MEET, wait_for_workers=False, master_listen_fd=listener
    )


def _keep_store(job: dist.Store, address: str) -> dist.Store:
    """A store of this start alone: torchrun's own outlives restarts, with all that is written in it."""
    store = _store(address, 0, serving=True)
    job.set("port", str(store.port))
    return store


def _find_store(job: dist.Store, address: str) -> dist.Store:
    """The store that process 0 keeps; one of an earlier start ended with it, so nobody answers there."""
    until = time.monotonic() + MEET.total_seconds()
    while time.monotonic() < until:
        port = int(job.get("port"))
        with suppress(OSError), socket.create_connection((address, port), timeout=10):
            return _store(address, port)
        time.sleep(LOOK)
    raise Lost(f"process 0 did not answer at {address} for {MEET.total_seconds():.0f} seconds")


def _order(kind: str, config: Stage, inputs: Inputs, workspace: Workspace) -> str:
    """All that another process needs to do the same stage."""
    return json.dumps(
        {
            "kind": kind,
            "settings": config.model_dump(mode="json", by_alias=True),
            "inputs": [(one.name, one.kind, str(one.path)) for one in inputs.artefacts],
            "folder": str(workspace.folder),
            "seed": workspace.seed,
            "threads": workspace.threads,
            "device": workspace.device,
        }
    )


def _read_failure(store: dist.Store) -> Failure | None:
    return Failure(**json.loads(store.get("failure"))) if store.check(["failure"]) else None


def lost_contact(error: BaseException | None) -> bool:
    """Whether a collective, or the store, failed under an error: the other side is gone."""
    if isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error)):
        return True
    return error is not None and lost_contact(error.__cause__)


def _failure(rank: int, error: BaseException, prefix: str) -> Failure:
    if isinstance(error, GlassboxError):
        return Failure(rank, error.exit_code, f"{prefix}{error}")
    if isinstance(error, KeyboardInterrupt):
        return Failure(rank, Interrupted.exit_code, "stopped")
    if isinstance(error, OSError):
        where = f"{error.filename or 'input or output'}: {error.strerror or error}"
        return Failure(rank, 1, f"{prefix}{where}; mend it and run the same command again, finished work is kept")
    if lost_contact(error):
        return Failure(rank, Lost.exit_code, f"{prefix}lost another process of the run; finished work is kept")
    text = f"{type(error).__name__}: {error}"
    return Failure(rank, Lost.exit_code, f"{prefix}unexpected failure of process {rank} ({text}); `--debug` shows more")
