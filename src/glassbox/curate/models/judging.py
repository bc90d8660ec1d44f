"""Labels by a language model behind an OpenAI-compatible endpoint: one question a text, answers kept on disk.

Every answer is appended to `judged.jsonl` as it comes, under the hash of model and question, so that a stage that was
interrupted asks nothing twice. Answers are read strictly: one that is not exactly a class (or the scores asked for) is
no label, and is counted. How an endpoint is asked: `asking.py`.
"""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from glassbox.curate.models import asking
from glassbox.ledger.writing import write_lines
from glassbox.recipe.classify import Judge

log = logging.getLogger("glassbox")

CLASSES_PROMPT = """To which one of these classes does the text below belong?

Classes: {classes}

Text:
<<<
{text}
>>>

Answer with the name of one class and nothing else."""
SCORES_PROMPT = """Rate the text below from 0 (worst) to 5 (best) on each of these: {classes}.

Text:
<<<
{text}
>>>

Answer with one JSON object that gives a number for each of {classes}, and nothing else."""
ANSWERS = "judged.jsonl"


def label(
    texts: Sequence[str], judge: Judge, classes: tuple[str, ...], folder: Path, check: Callable[[], None] | None = None
) -> list[str | None]:
    """The class that the judge gives each text; None where it gave no clear answer.

    `folder` keeps the answers; `check` is called between answers and may raise (`Workspace.stop_if_asked`). An endpoint
    that refuses the key or the model, or does not answer at all, raises RequestError.
    """
    answers = _answers([_question(text, judge, classes, CLASSES_PROMPT) for text in texts], judge, folder, check)
    return _read_all(answers, lambda answer: parse_class(answer, classes))


def scores(
    texts: Sequence[str], judge: Judge, names: tuple[str, ...], folder: Path, check: Callable[[], None] | None = None
) -> list[dict[str, float] | None]:
    """As `label`, for numbers: each text's score in every dimension of `names`."""
    answers = _answers([_question(text, judge, names, SCORES_PROMPT) for text in texts], judge, folder, check)
    return _read_all(answers, lambda answer: parse_scores(answer, names))


def parse_class(answer: str, classes: tuple[str, ...]) -> str | None:
    """The class that an answer names, case and quotation marks aside; an answer that says more names none."""
    said = _spoken(answer).strip("\"'`*. \t\n").casefold()
    found = [name for name in classes if name.casefold() == said]
    return found[0] if len(found) == 1 else None


def parse_scores(answer: str, names: tuple[str, ...]) -> dict[str, float] | None:
    """The finite numbers that an answer, a JSON object (a code fence around it is let pass), gives for all `names`."""
    said = _spoken(answer).removeprefix("```json").removeprefix("```").removesuffix("```").strip()
    try:
        row = json.loads(said)
    except (ValueError, RecursionError):
        return None
    if isinstance(row, (int, float)) and len(names) == 1:
        row = {names[0]: row}
    if not isinstance(row, dict) or not all(is_number(row.get(name)) for name in names):
        return None
    return {name: float(row[name]) for name in names}


def is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number (true and false are none)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer of hundreds of digits
        return False


def _question(text: str, judge: Judge, classes: tuple[str, ...], default: str) -> str:
    # The text last: what stands in it is not replaced again.
    return (
        (judge.prompt or default).replace("{classes}", ", ".join(classes)).replace("{text}", text[: judge.characters])
    )


def _spoken(answer: str) -> str:
    """An answer without the thoughts that reasoning models put before it."""
    return answer.rpartition("</think>")[2].strip()


def _read_all(answers: list[str | None], parse: Callable[[str], Any]) -> list[Any]:
    labels = [None if answer is None else parse(answer) for answer in answers]
    unread = [answer for answer, found in zip(answers, labels, strict=True) if answer is not None and found is None]
    if unread:
        log.warning("%d of the judge's %d answers are no label, such as %r", len(unread), len(answers), unread[0][:200])
    return labels


def _answers(questions: list[str], judge: Judge, folder: Path, check: Callable[[], None] | None) -> list[str | None]:
    """The answer to each question: from disk, or asked for now; None for one that the endpoint did not give."""
    keys = [hashlib.sha256(f"{judge.model}\n{judge.answer_tokens}\n{one}".encode()).hexdigest() for one in questions]
    path = folder / ANSWERS
    known = _load(path)
    fields = {"temperature": 0, "max_tokens": judge.answer_tokens}
    wanted = {key: (question, fields) for key, question in zip(keys, questions, strict=True) if key not in known}
    folder.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for key, answer in asking.ask(_server(judge), wanted, check):
            if answer:
                known[key] = answer.text
                file.write(json.dumps({"key": key, "answer": answer.text}, ensure_ascii=False) + "\n")
                file.flush()
    return [known.get(key) for key in keys]


def _server(judge: Judge) -> asking.Server:
    gone = "; what it has answered so far is kept"
    return asking.Server(f"the judge at {judge.url}", judge.url, judge.model, judge.key, judge.parallel, gone)


def _load(path: Path) -> dict[str, str]:
    """Answers of an earlier attempt; a torn last line (a kill while writing) is cut off."""
    rows: list[dict[str, str]] = []
    lines = path.read_bytes().splitlines() if path.exists() else []
    for line in lines:
        try:
            row = json.loads(line)
            rows.append({"key": row["key"], "answer": row["answer"]})
        except (ValueError, KeyError, TypeError):
            break
    if len(rows) < len(lines):
        write_lines(path, rows)
    return {row["key"]: row["answer"] for row in rows}
