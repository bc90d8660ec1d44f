"""Commands on models: score, talk to, serve, exchange."""

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from glassbox.cli.arguments import AsJson, ModelName, NewFolder, Runs, WeightType
from glassbox.console import err, out, print_json
from glassbox.errors import RequestError
from glassbox.ledger import run as runs_
from glassbox.report.format import duration, size


def score(
    model: ModelName,
    file: Annotated[Path, typer.Argument(help='JSON lines of {"text": ...}.')],
    runs: Runs = Path("runs"),
) -> None:
    """Per-token log-probabilities of each text, as JSON lines on standard output."""
    from glassbox.generate.score import score_file
    from glassbox.model.folder import load_model

    loaded = load_model(runs_.model_folder(model, runs))
    for row in score_file(loaded, file):
        sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")


def chat(
    model: ModelName,
    prompt: Annotated[Optional[str], typer.Option("-p", "--prompt", help="Answer this and exit.")] = None,  # noqa: UP045
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the most likely token.")] = 0.0,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 256,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    runs: Runs = Path("runs"),
) -> None:
    """Talk to a model in the terminal (an empty line or Ctrl-D ends it)."""
    from glassbox.generate.chat import ChatSession
    from glassbox.model.folder import load_model

    session = ChatSession(
        load_model(runs_.model_folder(model, runs)), temperature=temperature, max_new_tokens=max_new_tokens, seed=seed
    )
    for question in [prompt] if prompt is not None else _typed():
        for piece in session.reply(question):
            sys.stdout.write(piece)
            sys.stdout.flush()
        sys.stdout.write("\n")


def serve(
    model: ModelName,
    host: str = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    api_key: Annotated[Optional[str], typer.Option(envvar="GLASSBOX_API_KEY")] = None,  # noqa: UP045
    slots: Annotated[int, typer.Option(min=1, help="Requests decoded side by side.")] = 8,
    runs: Runs = Path("runs"),
) -> None:
    """Serve a model: OpenAI-compatible HTTP and a chat page."""
    if find_spec("fastapi") is None or find_spec("uvicorn") is None:
        raise RequestError("the server needs FastAPI and uvicorn: pip install 'glassbox-llm[serve]'")
    from glassbox.serve.app import serve_model

    serve_model(runs_.model_folder(model, runs), name=model, host=host, port=port, api_key=api_key, slots=slots)


def import_(
    folder: Annotated[Path, typer.Argument(help="A folder in Hugging Face's form.")],
    out_folder: NewFolder,
    dtype: WeightType = None,
    as_json: AsJson = False,
) -> None:
    """Turn a Hugging Face model (Mistral, Mixtral, OLMoE, dots1, Qwen2, MiMo) into a model folder."""
    from glassbox.interchange.importing import import_model

    _print_done(out_folder, import_model(folder, out_folder, dtype), as_json)


def export_(
    model: ModelName,
    out_folder: NewFolder,
    to: Annotated[str, typer.Option(help="hf (a folder that transformers reads) or gguf (llama.cpp).")] = "hf",
    dtype: WeightType = None,
    without_drafts: Annotated[
        bool, typer.Option("--without-drafts", help="Leave multi-token blocks out: MiMo becomes Qwen2.")
    ] = False,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Write a model for other software, as a Hugging Face folder or a GGUF file."""
    source = runs_.model_folder(model, runs)
    if to == "gguf":
        if without_drafts:
            raise RequestError("a GGUF file never holds multi-token blocks: leave --without-drafts out")
        if find_spec("gguf") is None:
            raise RequestError("GGUF files need the gguf package: pip install 'glassbox-llm[gguf]'")
        from glassbox.interchange.gguf import export_gguf

        _print_done(out_folder, export_gguf(source, out_folder, dtype), as_json)
        return
    if to != "hf":
        raise RequestError(f"--to {to}: can be hf or gguf")
    from glassbox.interchange.exporting import export_model

    _print_done(out_folder, export_model(source, out_folder, dtype, without_drafts), as_json)


def _print_done(folder: Path, done: Any, as_json: bool) -> None:
    if as_json:
        print_json({"folder": str(folder), **asdict(done)})
        return
    for warning in done.warnings:
        err.print(f"glassbox: note: {warning}")
    out.print(
        f"{folder}: {done.family}, {done.parameters:,} parameters, {size(done.bytes)} in {duration(done.seconds)}; "
        f"{done.read:,} tensors read, {done.written:,} written, none missing, none left over"
    )
    out.print(
        f"checked: the logits of a fixed text differ by {done.largest:.2g} at most ({done.share:.2g} of their size)"
    )


def _typed() -> Iterable[str]:
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return
        if not line.strip():
            return
        yield line
