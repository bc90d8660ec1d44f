"""The items of a task: rows read from files, put as questions, with examples before them."""

import gzip
import importlib.util
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from glassbox.errors import RequestError
from glassbox.evaluate.forms import FORMS, Form, Question, Row
from glassbox.ledger.hashing import digest
from glassbox.recipe.tasks import Task, TaskRows

log = logging.getLogger("glassbox")


@dataclass(frozen=True)
class Item:
    """One thing to score."""

    question: Question
    """Complete: instruction and examples stand in its contexts."""
    row: int
    """The row it was made of; items of one row are not independent."""
    group: str
    """The part of the task that it also counts for; "" for none."""


@dataclass(frozen=True)
class Asked:
    """A task, ready to be put to a model."""

    task: Task
    items: tuple[Item, ...]

    @property
    def form(self) -> Form:
        return FORMS[self.task.form]

    @property
    def sha256(self) -> str:
        """Hash of every context, continuation and right answer, in order."""
        questions = [item.question for item in self.items]
        return digest([[one.contexts, one.continuations, one.gold, one.answer] for one in questions])


def items_of(task: Task, problems: Path | None = None) -> Asked:
    """Read a task's rows and put them as its form says. `problems` is the folder of a problems stage, if there is one.

    Raises RequestError for rows that cannot be read, or are of another form.
    """
    form, most = FORMS[task.form], max(examples for _, examples in variants(task))
    rows = read_rows(_where(task, task.rows, problems, "held_out"), task.name)
    if task.limit is not None and task.limit < len(rows):
        rows = [rows[i * len(rows) // task.limit] for i in range(task.limit)]
    pool: dict[str, list[Question]] = {}
    for row in read_rows(_where(task, task.examples, problems, "train"), task.name) if most else ():
        question = _question(row, task, form)
        pool.setdefault(form.subject(row), []).append(question)
    items, short = [], set()
    for number, row in enumerate(rows):
        question, subject = _question(row, task, form), form.subject(row)
        shown = [one.solved for one in pool.get(subject, [])[: most + 1] if one != question][:most]
        if len(shown) < most:
            short.add(f"{len(shown)}{subject and f' for {subject}'}")
        for instructed, examples in variants(task):
            before = [form.instruction(row) * instructed, *(f"{solved}\n\n" for solved in shown[:examples])]
            items.append(Item(_after("".join(before), question), number, form.group(row)))
    if short:
        log.warning("task '%s' wants %d examples, but there are only %s", task.name, most, ", ".join(sorted(short)))
    return Asked(task, tuple(items))


def variants(task: Task) -> tuple[tuple[bool, int], ...]:
    """(with the instruction, examples) of each way that a row is asked."""
    return FORMS[task.form].variants or ((True, task.shots),)


def _after(text: str, question: Question) -> Question:
    contexts = tuple(text + context for context in question.contexts)
    return Question(contexts, question.continuations, question.gold, question.answer)


def _where(task: Task, given: TaskRows | None, problems: Path | None, split: str) -> TaskRows:
    """The rows that a task names, or those of the problems stage."""
    if given is not None:
        return given
    if problems is None:
        raise RequestError(f"task '{task.name}' needs rows, or a problems stage in `from`")
    return TaskRows(path=str(problems / f"{split}.jsonl"))


def _question(row: Row, task: Task, form: Form) -> Question:
    try:
        form.subject(row)
        return form.read(row)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        shown = json.dumps(row, ensure_ascii=False, default=str)[:100]
        raise RequestError(f"task '{task.name}': a row is not of form {task.form} ({error!r}): {shown}") from None


def read_rows(where: TaskRows, task: str) -> list[dict[str, Any]]:
    """All rows, in order. Raises RequestError if a line cannot be read, or there is none."""
    if where.path.startswith("hf://"):
        rows = list(_hub(where, task))
    else:
        rows = [row for path in where.files(task) for row in _file(path, task)]
        if where.split:
            rows = [row for row in rows if row.get("split", where.split) == where.split]
    if not rows:
        raise RequestError(f"task '{task}': {where.path} holds no rows{where.split and f' of split {where.split}'}")
    return rows


def _file(path: Path, task: str) -> Iterator[dict[str, Any]]:
    try:
        if path.name.endswith(".parquet"):
            yield from pq.read_table(path).to_pylist()
            return
        with gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _parsed(line, f"task '{task}': {path}:{number}")
    except (OSError, EOFError, pa.ArrowException) as error:
        raise RequestError(f"task '{task}': {path} cannot be read: {error}") from None


def _parsed(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise RequestError(f"{where} is no JSON object")
    return row


def _hub(where: TaskRows, task: str) -> Iterator[dict[str, Any]]:
    """Rows of a data set of Hugging Face; no program of the data set is run."""
    if importlib.util.find_spec("datasets") is None:
        raise RequestError(f"task '{task}' needs the datasets library: pip install 'glassbox-llm[hub]'")
    import datasets

    name = where.path.removeprefix("hf://")
    try:
        yield from datasets.load_dataset(name, where.subset or None, split=where.split, streaming=True)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise RequestError(f"task '{task}': {where.path} cannot be read: {error}") from error
