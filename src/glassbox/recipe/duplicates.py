"""Settings of what is decided between documents: duplicates, repeated passages, evaluation sets."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from glassbox.errors import RequestError
from glassbox.recipe.base import Names, OneOrMore, Settings
from glassbox.recipe.paths import home, matches

EVALUATION_ENDINGS = (".jsonl", ".jsonl.gz", ".parquet", ".txt", ".txt.gz")
"""What a folder of evaluation problems is searched for."""


class NearDuplicates(Settings):
    """Near-duplicate removal by MinHash and locality-sensitive hashing."""

    unit: Literal["words", "characters", "code"] = "words"
    """What a shingle is made of: words (runs of letters and digits, lower case; each letter one where a script has no
    spaces between words), characters (lower case, without ASCII punctuation, single spaces: SlimPajama), or code (runs
    of letters, digits and _, case kept: The Stack)."""
    ngram: int = Field(default=5, gt=0)
    """Units in a shingle. A shorter document is one shingle."""
    permutations: int = Field(default=128, gt=0)
    """Hash functions, the length of a signature."""
    bands: int = Field(default=20, gt=0)
    """Bands a signature is cut into; documents that agree in one whole band are compared."""
    rows: int = Field(default=6, gt=0)
    """Hash values in a band."""
    threshold: float = Field(default=0.8, gt=0, le=1)
    """Jaccard similarity to a kept document from which a document is dropped."""
    check: Literal["none", "minhash", "exact"] = "minhash"
    """What a pair that meets in a band must pass: nothing (as SlimPajama and dots.llm1), the similarity that the whole
    signatures estimate, or that estimate and, within two standard deviations of the threshold, the exact one."""

    @model_validator(mode="after")
    def _check(self) -> "NearDuplicates":
        if self.bands * self.rows > self.permutations:
            raise ValueError(f"{self.bands} bands of {self.rows} rows need more than {self.permutations} permutations")
        return self


class Substrings(Settings):
    """Cut passages that stand in several documents or places (Lee et al., arXiv:2107.06499)."""

    words: int = Field(default=50, gt=1)
    """Length from which a repeated passage is cut; words as near duplicates count them."""
    keep_one: bool = True
    """Whether the occurrence of highest priority stays (else all go, as in RefinedWeb)."""
    min_words: int = Field(default=50, ge=0)
    """A document left with fewer words is dropped."""


class SemanticDuplicates(Settings):
    """Near duplicates in meaning: embeddings, clusters, cosine inside a cluster (SemDeDup, arXiv:2303.09540)."""

    embedding: str = "tfidf"
    """tfidf (weighted words and pairs of words, hashed to 256 numbers; needs no model) or the folder of a Hugging Face
    encoder."""
    clusters: int | None = Field(default=None, gt=0)
    """Clusters of k-means; default the root of the number of documents."""
    threshold: float = Field(default=0.95, gt=0, le=1)
    """Cosine similarity to a kept document of the same cluster from which a document is dropped."""

    def files(self) -> list[Path]:
        """The encoder's files, sorted: those of the folder itself. RequestError if it does not exist."""
        if self.embedding == "tfidf":
            return []
        folder = home(self.embedding)
        if not folder.is_dir():
            raise RequestError(f"semantic duplicates: {self.embedding} does not exist; set embedding to an encoder")
        return sorted(path for path in folder.iterdir() if path.is_file())


class Duplicates(Settings):
    """Which documents repeat others, over all sources. Steps run in the order of these fields."""

    prefer: Annotated[tuple[Literal["longest", "quality"], ...], OneOrMore] = ()
    """Which copy stays: that of the earlier source; within a source by these, in order (quality: the one of the stage's
    models that keeps a share, else the first); and then the one whose text hashes lowest, so that the order of files
    decides nothing."""
    exact: Literal["none", "spaces", "normalised"] = "spaces"
    """Documents that count as equal: equal in all but white space, or also in all but case, accents' encoding and
    punctuation (dots.llm1)."""
    near: NearDuplicates | None = NearDuplicates()
    """Near duplicates; null for none."""
    substrings: Substrings | None = None
    """Repeated passages; null for none."""
    semantic: SemanticDuplicates | None = None
    """Near duplicates in meaning; null for none."""


class EvaluationSet(Settings):
    """Problems of an evaluation that must not be in the documents."""

    name: str = Field(pattern="^[a-z][a-z0-9_-]*$")
    """What the report calls it."""
    path: str
    """JSON lines (.jsonl, .jsonl.gz), Parquet, or text (one problem a line); a file, a folder or a pattern."""
    fields: Names = ("question",)
    """Fields whose texts are looked for, each on its own (a list of texts as one)."""

    def files(self) -> list[Path]:
        """The set's files, sorted. Raises RequestError if there is none."""
        path = home(self.path)
        if any(letter in self.path for letter in "*?[") and not path.exists():
            found = matches(path, f"evaluation set '{self.name}'")
        elif path.is_dir():
            found = [one for one in path.rglob("*") if one.name.endswith(EVALUATION_ENDINGS) and one.is_file()]
        else:
            found = [path] if path.is_file() else []
        found = [one for one in found if one.name.endswith(EVALUATION_ENDINGS)]
        if not found:
            raise RequestError(
                f"evaluation set '{self.name}': {self.path} holds no {', '.join(EVALUATION_ENDINGS)} file;"
                " set its path to the evaluation's problems"
            )
        return sorted(found)


class Decontaminate(Settings):
    """Keep evaluation problems out of the documents. The held-out problems of a problems stage are always a set."""

    sets: tuple[EvaluationSet, ...] = ()
    """Further evaluations, as files."""
    ngram: int = Field(default=13, gt=0)
    """Words of an n-gram; words are runs of letters and digits, lower case. A shorter problem matches as a whole."""
    share: float = Field(default=0.0, ge=0, lt=1)
    """Share of a problem's words in matching n-grams above which the document goes: 0 for any n-gram in common (GPT-3),
    0.5 with n-grams of 8 for Tulu 3."""
    cut: int | None = Field(default=None, ge=0)
    """Instead of dropping the document, cut the match and so many characters on either side (GPT-3: 200)."""
