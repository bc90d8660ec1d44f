"""Task formats as data: how a row of a public data set becomes contexts, continuations and the right one.

Those of multiple choice are the zero-shot cloze formats of OLMoE's in-loop evaluation (arXiv:2409.02060, appendix C,
table 11): the answer's own text is scored, not a letter, except in `mmlu_mc`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Row = Mapping[str, Any]
Metric = Literal["acc", "len_norm", "exact_match"]

LETTERS = "ABCD"
STEM = (
    *("abstract_algebra", "astronomy", "college_biology", "college_chemistry", "college_computer_science"),
    *("college_mathematics", "college_physics", "computer_security", "conceptual_physics", "electrical_engineering"),
    *("elementary_mathematics", "high_school_biology", "high_school_chemistry", "high_school_computer_science"),
    *("high_school_mathematics", "high_school_physics", "high_school_statistics", "machine_learning"),
)
HUMANITIES = (
    *("formal_logic", "high_school_european_history", "high_school_us_history", "high_school_world_history"),
    *("international_law", "jurisprudence", "logical_fallacies", "moral_disputes", "moral_scenarios", "philosophy"),
    *("prehistory", "professional_law", "world_religions"),
)
SOCIAL_SCIENCES = (
    *("econometrics", "high_school_geography", "high_school_government_and_politics", "high_school_macroeconomics"),
    *("high_school_microeconomics", "high_school_psychology", "human_sexuality", "professional_psychology"),
    *("public_relations", "security_studies", "sociology", "us_foreign_policy"),
)


@dataclass(frozen=True)
class Question:
    """A row, put as a question."""

    contexts: tuple[str, ...]
    """What each continuation follows; where the model writes its answer, what it is asked with."""
    continuations: tuple[str, ...]
    """Each with what parts it from its context, one blank; where the model writes its answer, the worked one alone."""
    gold: int
    """Which continuation is right."""
    answer: str = ""
    """What a written answer must come to."""

    @property
    def solved(self) -> str:
        """The question with its right continuation: an example for others."""
        return self.contexts[self.gold] + self.continuations[self.gold]


@dataclass(frozen=True)
class Form:
    """How the rows of a data set are asked and scored."""

    read: Callable[[Row], Question]
    """Raises KeyError, ValueError, TypeError or IndexError for a row of another layout."""
    metric: Metric
    subject: Callable[[Row], str] = lambda row: ""
    """Examples are those of the row's own subject."""
    group: Callable[[Row], str] = lambda row: ""
    """Rows of a group have a score of their own beside that of all; "" has none."""
    instruction: Callable[[Row], str] = lambda row: ""
    """What stands before the examples."""
    variants: tuple[tuple[bool, int], ...] = ()
    """(with the instruction, examples) of each way that a row is asked, each an item of its own; default: once, with
    the instruction and as many examples as the task says."""


def choices(context: str, texts: Sequence[str], gold: int) -> Question:
    """One context and the texts that may follow it, each after one blank."""
    texts = tuple(f" {text}" for text in texts)
    if not 0 <= gold < len(texts):
        raise ValueError(f"the right answer is number {gold} of {len(texts)}")
    return Question((context,) * len(texts), texts, gold)


def piqa(row: Row) -> Question:
    return choices(f"Question: {row['goal']}\nAnswer:", [row["sol1"], row["sol2"]], int(row["label"]))


def hellaswag(row: Row) -> Question:
    context = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
    return choices(cleaned(context), [cleaned(ending) for ending in row["endings"]], int(row["label"]))


def cleaned(text: str) -> str:
    """HellaSwag's texts without what is left of WikiHow's markup."""
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def winogrande(row: Row) -> Question:
    before, blank, after = row["sentence"].partition("_")
    if not blank:
        raise ValueError("the sentence has no blank")
    contexts = (before + row["option1"], before + row["option2"])
    return Question(contexts, (f" {after.strip()}",) * 2, (1, 2).index(int(row["answer"])))


def openbookqa(row: Row) -> Question:
    return choices(row["question_stem"], row["choices"]["text"], row["choices"]["label"].index(row["answerKey"]))


def boolq(row: Row) -> Question:
    right = (True, False).index(row["answer"] if "answer" in row else bool(row["label"]))
    return choices(f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:", ["yes", "no"], right)


def sciq(row: Row) -> Question:
    texts = [row["distractor1"], row["distractor2"], row["distractor3"], row["correct_answer"]]
    return choices(f"{row['support'].strip()}\nQuestion: {row['question']}\nAnswer:", texts, 3)


def arc(row: Row) -> Question:
    labels, texts = row["choices"]["label"], row["choices"]["text"]
    return choices(f"Question: {row['question']}\nAnswer:", texts, labels.index(row["answerKey"]))


def copa(row: Row) -> Question:
    connector = {"cause": "because", "effect": "therefore"}[row["question"]]
    texts = [text[:1].lower() + text[1:] for text in (row["choice1"], row["choice2"])]
    return choices(f"{row['premise'].strip().removesuffix('.')} {connector}", texts, int(row["label"]))


def social_iqa(row: Row) -> Question:
    texts = [row["answerA"], row["answerB"], row["answerC"]]
    return choices(f"Question: {row['context']} {row['question']}\nAnswer:", texts, int(row["label"]) - 1)


def mmlu_texts(row: Row) -> Question:
    return choices(f"Question: {row['question'].strip()}\nAnswer:", row["choices"], int(row["answer"]))


def mmlu_letters(row: Row) -> Question:
    options = "".join(f"{letter}. {text}\n" for letter, text in zip(LETTERS, row["choices"], strict=True))
    return choices(f"{row['question'].strip()}\n{options}Answer:", LETTERS, int(row["answer"]))


def mmlu_instruction(row: Row) -> str:
    subject = row["subject"].replace("_", " ")
    return f"The following are multiple choice questions (with answers) about {subject}:\n\n"


def mmlu_group(row: Row) -> str:
    groups = (("stem", STEM), ("humanities", HUMANITIES), ("social_sciences", SOCIAL_SCIENCES))
    return next((name for name, subjects in groups if row["subject"] in subjects), "other")


def cloze(row: Row) -> Question:
    return choices(row["query"], row["choices"], int(row["gold"]))


def gsm8k(row: Row) -> Question:
    context, solution = f"Question: {row['question']}\nAnswer:", row["answer"]
    return Question((context,), (f" {solution}",), 0, solution.partition("####")[2].strip())


def problem(row: Row) -> Question:
    """As pretraining documents have problems: the question, and its solution in the next line."""
    return Question((f"{row['question']}\n",), (row["solution"],), 0, row["answer"])


MMLU: dict[str, Any] = {
    "subject": lambda row: row["subject"],
    "group": mmlu_group,
    "instruction": mmlu_instruction,
}
FORMS: dict[str, Form] = {
    "piqa": Form(piqa, "len_norm"),
    "hellaswag": Form(hellaswag, "len_norm"),
    "winogrande": Form(winogrande, "acc"),
    "openbookqa": Form(openbookqa, "len_norm"),
    "boolq": Form(boolq, "acc"),
    "sciq": Form(sciq, "acc"),
    "arc_easy": Form(arc, "acc"),
    "arc_challenge": Form(arc, "len_norm"),
    "copa": Form(copa, "acc"),
    "commonsense_qa": Form(arc, "len_norm"),
    "social_iqa": Form(social_iqa, "len_norm"),
    "mmlu_var": Form(
        mmlu_texts, "len_norm", **MMLU, variants=((False, 0), *((True, examples) for examples in range(6)))
    ),
    "mmlu_mc": Form(mmlu_letters, "acc", **MMLU),
    "cloze": Form(cloze, "len_norm"),
    "gsm8k": Form(gsm8k, "exact_match"),
    "problems": Form(problem, "exact_match"),
}
