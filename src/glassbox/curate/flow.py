"""The dataflow on Daft: a step of curation done to every part of the corpus by worker processes.

The processes are this machine's or, with the runner ray, those of a cluster whose machines see the same folders. What a
step gives does not depend on how many there are: a part's result is a function of the part, and waits on disk under
the part's number.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson

from glassbox.errors import GlassboxError, RequestError
from glassbox.recipe.curation import Engine

WORKER_BYTES = 700_000_000
"""Memory that a worker needs: libraries, tables, and some batches of documents."""

Work = Callable[[Path, int], None]
"""A step done to one part: (staging folder, part number)."""


WORTH_BYTES = 16_000_000
"""Stored bytes for which another worker is worth the seconds that it takes to start."""


def worker_count(engine: Engine, parts: int, size: int) -> int:
    """Workers that the parts and their `size` in bytes can use and the memory allows; at least one."""
    return max(1, min(engine.workers, parts, engine.memory // WORKER_BYTES, size // WORTH_BYTES))


def each(work: Work, folder: Path, numbers: Sequence[int], engine: Engine, size: int) -> Iterator[int]:
    """Do `work` to the parts `numbers`, of `size` bytes in all; yields each number when its part is done, in any order.

    A GlassboxError of the work is raised here as it is. One worker of this machine is this very process.
    """
    workers = worker_count(engine, len(numbers), size)
    if engine.runner == "local" and workers == 1:
        for number in numbers:
            work(folder, number)
            yield number
        return
    for row in _rows(work, folder, numbers, engine, workers):
        done = orjson.loads(row)
        if "error" in done:
            raise {"RequestError": RequestError}.get(done["kind"], GlassboxError)(done["error"])
        yield done["part"]


def _rows(work: Work, folder: Path, numbers: Sequence[int], engine: Engine, workers: int) -> Iterator[str]:
    # Daft reports its use to its makers and draws progress bars unless told otherwise before it is imported.
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("DAFT_PROGRESS_BAR", "0")
    import daft

    # An error in a node is raised to us; Daft's own note of it would stand beside our sentence.
    logging.getLogger("daft_local_execution").setLevel(logging.CRITICAL)
    _use(engine)

    class Worker:
        def __init__(self) -> None:
            # Workers share the machine: a library's own pool of threads in each of them would only get in the way.
            for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
                os.environ[name] = "1"

        @daft.method.batch(return_dtype=daft.DataType.string(), batch_size=1)
        def do(self, parts: daft.Series) -> Any:
            return [_done(work, folder, part) for part in parts.to_pylist()]

    local = engine.runner == "local"
    worker = daft.cls(Worker, max_concurrency=workers, use_process=local)()
    frame = daft.from_pydict({"part": list(numbers)})
    if not local:
        frame = frame.into_partitions(len(numbers))
    results = frame.select(worker.do(frame["part"]).alias("row")).to_arrow_iter(results_buffer_size=workers)
    try:
        for batch in results:
            yield from batch.column("row").to_pylist()
    except RuntimeError as error:
        if "closed the connection" not in str(error):
            raise
        raise GlassboxError(
            "a worker process died, perhaps for want of memory; set engine.workers lower and run the same command "
            "again: finished parts are kept"
        ) from error


def _done(work: Work, folder: Path, part: int) -> str:
    """The part's number, or the error that is ours to tell, as JSON: exceptions lose their class on the way."""
    try:
        work(folder, part)
    except GlassboxError as error:
        return orjson.dumps({"error": str(error), "kind": type(error).__name__}).decode()
    return orjson.dumps({"part": part}).decode()


def _use(engine: Engine) -> None:
    """Daft can be told its runner once in a process."""
    import daft

    current: Any = daft.runners._get_runner()
    if engine.runner == "local":
        if current is None:
            daft.set_runner_native()
        elif current.name != "native":
            raise RequestError("one process cannot curate on Ray and then locally; give all stages the same runner")
        return
    if find_spec("ray") is None:
        raise RequestError("engine.runner: ray needs the Ray library: pip install 'glassbox-llm[cluster]'")
    if current is None:
        try:
            daft.set_runner_ray(address=engine.address or None)
        except ConnectionError as error:
            raise RequestError(f"no Ray cluster answers at '{engine.address}': {error}") from error
    elif current.name != "ray":
        raise RequestError("one process cannot curate locally and then on Ray; give all stages the same runner")
