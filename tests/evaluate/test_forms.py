"""Formats against the literal prompts that the reference evaluator makes of rows as the public sets lay them out."""

import gzip
import json
from pathlib import Path

import pytest

from glassbox.evaluate.forms import FORMS, Question, mmlu_group
from glassbox.evaluate.tasks import items_of
from glassbox.ledger.writing import write_lines
from glassbox.recipe.tasks import ANSWERED, WITH_EXAMPLES, Task, TaskRows

ROWS: dict[str, dict] = {
    "piqa": {"goal": "ice box", "sol1": "add water", "sol2": "add soda", "label": 0},
    "hellaswag": {
        "activity_label": "Removing ice",
        "ctx_a": "Then, the man writes.",
        "ctx_b": "then, a woman",
        "endings": ["[substeps] adds wax.", "stops.  He [title] rests.", "a", "b"],
        "label": "1",
    },
    "winogrande": {
        "sentence": "Sarah was better than Maria so _ always got the easy cases.",
        "option1": "Sarah",
        "option2": "Maria",
        "answer": "2",
    },
    "openbookqa": {
        "question_stem": "The sun is responsible for",
        "choices": {"text": ["puppies", "plants growing"], "label": ["A", "B"]},
        "answerKey": "B",
    },
    "boolq": {"passage": "Tax is a tax.", "question": "is tax a tax", "answer": False},
    "sciq": {
        "support": " Mesophiles grow. ",
        "question": "What grows?",
        "distractor1": "protozoa",
        "distractor2": "gymnosperms",
        "distractor3": "viruses",
        "correct_answer": "mesophilic organisms",
    },
    "arc_easy": {
        "question": "Which is dry?",
        "choices": {"text": ["palms", "water", "fog"], "label": ["1", "2", "3"]},
        "answerKey": "1",
    },
    "copa": {
        "premise": "The man turned on the faucet.",
        "choice1": "The toilet filled.",
        "choice2": "Water flowed.",
        "question": "effect",
        "label": 1,
    },
    "social_iqa": {
        "context": "Robin left.",
        "question": "Why?",
        "answerA": "to eat",
        "answerB": "to rest",
        "answerC": "to run",
        "label": "3",
    },
    "mmlu_var": {"question": "Find c.", "choices": ["0", "1", "2", "3"], "answer": 1, "subject": "abstract_algebra"},
    "mmlu_mc": {"question": "Find c.", "choices": ["0", "1", "2", "3"], "answer": 1, "subject": "abstract_algebra"},
    "cloze": {"query": "The cat sat on", "choices": ["the mat", "it"], "gold": 0},
}
ASKED: dict[str, Question] = {
    "piqa": Question(("Question: ice box\nAnswer:",) * 2, (" add water", " add soda"), 0),
    "hellaswag": Question(
        ("Removing ice: Then, the man writes. Then, a woman",) * 4,
        ("  adds wax.", " stops. He. rests.", " a", " b"),
        1,
    ),
    "winogrande": Question(
        ("Sarah was better than Maria so Sarah", "Sarah was better than Maria so Maria"),
        (" always got the easy cases.",) * 2,
        1,
    ),
    "openbookqa": Question(("The sun is responsible for",) * 2, (" puppies", " plants growing"), 1),
    "boolq": Question(("Tax is a tax.\nQuestion: is tax a tax?\nAnswer:",) * 2, (" yes", " no"), 1),
    "sciq": Question(
        ("Mesophiles grow.\nQuestion: What grows?\nAnswer:",) * 4,
        (" protozoa", " gymnosperms", " viruses", " mesophilic organisms"),
        3,
    ),
    "arc_easy": Question(("Question: Which is dry?\nAnswer:",) * 3, (" palms", " water", " fog"), 0),
    "copa": Question(("The man turned on the faucet therefore",) * 2, (" the toilet filled.", " water flowed."), 1),
    "social_iqa": Question(("Question: Robin left. Why?\nAnswer:",) * 3, (" to eat", " to rest", " to run"), 2),
    "mmlu_var": Question(("Question: Find c.\nAnswer:",) * 4, (" 0", " 1", " 2", " 3"), 1),
    "mmlu_mc": Question(("Find c.\nA. 0\nB. 1\nC. 2\nD. 3\nAnswer:",) * 4, (" A", " B", " C", " D"), 1),
    "cloze": Question(("The cat sat on",) * 2, (" the mat", " it"), 0),
}
METRICS = {"acc": {"winogrande", "boolq", "sciq", "arc_easy", "copa", "mmlu_mc"}, "exact_match": {"gsm8k", "problems"}}


@pytest.mark.parametrize("form", ROWS)
def test_a_row_becomes_the_references_prompt(form: str) -> None:
    assert FORMS[form].read(ROWS[form]) == ASKED[form]


def test_each_form_has_the_references_metric() -> None:
    for name, form in FORMS.items():
        assert form.metric == next((metric for metric, names in METRICS.items() if name in names), "len_norm")
    assert set(ANSWERED) == METRICS["exact_match"]
    assert {name for name, form in FORMS.items() if form.variants} == set(WITH_EXAMPLES)
    assert set(FORMS) == set(Task.model_fields["form"].annotation.__args__)  # type: ignore[union-attr]


def test_written_answers_are_asked_as_they_are_shown() -> None:
    shown = FORMS["gsm8k"].read({"question": "2 + 2?", "answer": "2+2=4\n#### 4"})
    assert shown == Question(("Question: 2 + 2?\nAnswer:",), (" 2+2=4\n#### 4",), 0, "4")
    assert (
        FORMS["problems"].read({"question": "2 + 2?", "solution": "#### 4", "answer": "4"}).solved == "2 + 2?\n#### 4"
    )


def test_mmlu_is_asked_seven_ways_and_scored_in_four_groups(data: Path) -> None:
    path = str(data / "mmlu" / "mmlu_dev_validation.jsonl.gz")
    rows, examples = TaskRows(path=path, split="validation"), TaskRows(path=path, split="dev")
    task = Task(name="mmlu", form="mmlu_var", rows=rows, examples=examples, limit=40)
    items = items_of(task).items
    assert len(items) == 40 * 7
    assert {item.group for item in items} == {"stem", "humanities", "social_sciences", "other"}
    contexts = [item.question.contexts[0] for item in items[:7]]
    bare = contexts[0]
    heading = "The following are multiple choice questions (with answers) about abstract algebra:\n\n"
    assert bare.startswith("Question: ")
    assert contexts[1] == heading + bare
    for shots, context in enumerate(contexts[1:]):
        assert context.startswith(heading)
        assert context.endswith(f"{bare}")
        assert context.count("\nAnswer:") == shots + 1
    letters = items_of(task.model_copy(update={"form": "mmlu_mc", "shots": 5})).items
    assert len(letters) == 40
    assert letters[0].question.contexts[0].count("\nD. ") == 6
    assert "\nAnswer: " in letters[0].question.contexts[0]
    subjects = {row["subject"] for row in map(json.loads, _lines(Path(path)))}
    sizes = [mmlu_group({"subject": subject}) for subject in subjects]
    assert [sizes.count(group) for group in ("stem", "humanities", "social_sciences", "other")] == [18, 13, 12, 14]


def test_public_files_are_read_as_they_are(data: Path) -> None:
    for form, path in {
        "piqa": "piqa/piqa_a.jsonl.gz",
        "winogrande": "winogrande/winogrande_a.jsonl.gz",
        "openbookqa": "openbookqa/openbookqa_validation.jsonl.gz",
        "boolq": "boolq/boolq_a.jsonl.gz",
        "arc_challenge": "arc/arc_challenge_validation.jsonl.gz",
        "commonsense_qa": "commonsense_qa/commonsense_qa_a.jsonl.gz",
        "cloze": "hellaswag/hellaswag_a.jsonl.gz",
        "gsm8k": "gsm8k/train.jsonl.gz",
    }.items():
        task = Task(name="one", form=form, rows=TaskRows(path=str(data / path)))  # type: ignore[arg-type]
        items = items_of(task).items
        assert len(items) == len(_lines(data / path))
        assert all(text.startswith(" ") for item in items for text in item.question.continuations)
        assert items_of(task.model_copy(update={"limit": 10})).items[1].question == items[len(items) // 10].question


def test_questions_are_those_of_the_published_requests(data: Path) -> None:
    """The last question of OLMo's own five-shot requests is what we ask with none."""
    requests = [json.loads(line) for line in _lines(data / "arc" / "oe_eval_val_rc_5shot" / "requests.jsonl.gz")]
    published = {
        (one["request"]["context"].rpartition("\n\n")[2], one["request"]["continuation"])
        for one in requests
        if one["doc"]["query"] in one["request"]["context"]
    }
    rows = TaskRows(path=str(data / "arc" / "arc_challenge_validation.jsonl.gz"))
    for item in items_of(Task(name="arc", form="arc_challenge", rows=rows)).items:
        for pair in zip(item.question.contexts, item.question.continuations, strict=True):
            assert pair in published


def test_examples_stand_as_in_the_published_requests(data: Path, tmp_path: Path) -> None:
    requests = [json.loads(line) for line in _lines(data / "arc" / "oe_eval_val_rc_5shot" / "requests.jsonl.gz")]
    published = {(one["request"]["context"], one["request"]["continuation"]) for one in requests}
    shown = requests[0]["request"]["context"].split("\n\n")[:5]
    train = {row["query"]: row for row in map(json.loads, _lines(data / "arc" / "arc_challenge_train.jsonl.gz"))}
    write_lines(tmp_path / "examples.jsonl", [train[text.partition("\nAnswer:")[0] + "\nAnswer:"] for text in shown])
    write_lines(tmp_path / "rows.jsonl", [one["doc"] for one in requests])
    rows, examples = (TaskRows(path=str(tmp_path / f"{name}.jsonl")) for name in ("rows", "examples"))
    items = items_of(Task(name="arc", form="cloze", rows=rows, examples=examples, shots=5)).items
    assert len(items) == len(requests)
    for item in items:
        assert set(zip(item.question.contexts, item.question.continuations, strict=True)) <= published


def _lines(path: Path) -> list[bytes]:
    with gzip.open(path) as lines:
        return [line for line in lines if line.strip()]
