"""A small tokens artefact, made by the stages themselves from Python's own source files and generated problems."""

import hashlib
import sysconfig
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import settings

from glassbox.judge import stage as problems_stage
from glassbox.ledger.workspace import Artefact, Inputs, Workspace
from glassbox.recipe.text import ProblemsStage, TokenizerStage, TokenizeStage
from glassbox.tokens import tokenize_stage, tokenizer_stage
from glassbox.tokens.tokenizer import load_tokenizer

settings.register_profile("glassbox", deadline=None)  # a busy machine is no failure
settings.load_profile("glassbox")


def write_documents(folder: Path, documents: list[dict]) -> Artefact:
    """A documents artefact in two files."""
    (folder / "documents").mkdir(parents=True)
    half = len(documents) // 2
    for name, rows in (("0.parquet", documents[:half]), ("1.parquet", documents[half:])):
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / "documents" / name)
    return Artefact("pages", "documents", folder)


SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("id", "text", "source", "origin")]
    + [("offset", pa.int64()), ("url", pa.string()), ("lang", pa.string())]
)


def document(text: str, source: str, origin: str, offset: int = 0) -> dict:
    name = hashlib.sha256(f"{origin}:{offset}".encode()).hexdigest()[:16]
    return {"id": name, "text": text, "source": source, "origin": origin, "offset": offset, "url": "", "lang": "en"}


@pytest.fixture(scope="session")
def corpus() -> list[dict]:
    """Files of the standard library as the source `code`, and their docstrings as the source `prose`."""
    rows = []
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(path for package in ("json", "email", "http") for path in (library / package).glob("*.py")):
        text = path.read_text(encoding="utf-8")
        rows.append(document(text, "code", path.name, len(rows)))
        for offset, part in enumerate(text.split('"""')[1::2]):
            rows.append(document(part, "prose", path.name, offset + 1_000_000 * len(rows)))
    return rows


@pytest.fixture(scope="session")
def inputs(corpus, tmp_path_factory) -> Inputs:
    """Documents, problems and a tokenizer."""
    root = tmp_path_factory.mktemp("inputs")
    documents = write_documents(root / "pages", corpus)
    for name in ("problems", "tokenizer"):
        (root / name).mkdir()
    problems_stage.run(ProblemsStage(kind="problems", train=300, held_out=50), Inputs(), Workspace(root / "problems"))
    problems = Artefact("problems", "problems", root / "problems")
    config = TokenizerStage(kind="tokenizer", vocab_size=700)
    tokenizer_stage.run(config, Inputs((documents, problems)), Workspace(root / "tokenizer"))
    return Inputs((documents, problems, Artefact("tokenizer", "tokenizer", root / "tokenizer")))


@pytest.fixture(scope="session")
def tokens_folder(inputs, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokens")
    tokenize_stage.run(TokenizeStage(kind="tokenize", held_out=0.1), inputs, Workspace(folder))
    return folder


@pytest.fixture(scope="session")
def tokenizer(tokens_folder):
    return load_tokenizer(tokens_folder / "tokenizer")
