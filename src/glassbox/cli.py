"""The command line: parses, calls, prints. What each command does is in the room it calls."""

import json
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from glassbox import __version__
from glassbox.console import err, out, print_json, print_rows, stop_on_signal, watching
from glassbox.errors import GlassboxError, IntegrityError, RequestError
from glassbox.ledger import run as runs_
from glassbox.ledger.runner import Selection, due_stages, execute
from glassbox.recipe.loading import load_recipe
from glassbox.recipe.schema import json_schema
from glassbox.recipe.training import PretrainStage
from glassbox.report.format import duration, size
from glassbox.stages import STAGES

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)

RecipeFile = Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one (`glassbox recipes`).")]
Overrides = Annotated[Optional[list[str]], typer.Argument(help="Settings to change: key.path=value")]  # noqa: UP045
RunName = Annotated[str, typer.Argument(help="A run's name under the runs folder, or its path.")]
ModelName = Annotated[
    str, typer.Argument(help="A run (its last model), run/stage, or a model folder, ours or Hugging Face's.")
]
NewFolder = Annotated[Path, typer.Argument(help="The new or empty folder to write; for GGUF a new .gguf file.")]
WeightType = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--dtype", help="Type of the weights: fp32, bf16 or fp16; default as they are."),
]
Runs = Annotated[Path, typer.Option("--runs", envvar="GLASSBOX_RUNS", help="Where runs live.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command()
def run(
    recipe: RecipeFile,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    first: Annotated[Optional[str], typer.Option("--from", help="Carry out from this stage on.")] = None,  # noqa: UP045
    last: Annotated[Optional[str], typer.Option("--to", help="Carry out up to this stage.")] = None,  # noqa: UP045
    only: Annotated[Optional[str], typer.Option(help="Carry out this stage alone.")] = None,  # noqa: UP045
    fresh: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Do this stage and those after it again, whatever their state."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Carry out a recipe, or go on with it: what is finished and unchanged is not done again."""
    loaded = load_recipe(recipe_path(recipe), overrides or ())
    folder = runs / loaded.name
    if only and (first or last):
        raise RequestError("--only names one stage; leave out --from and --to")
    selection = Selection(only or first, only or last, frozenset(fresh or ()))
    if dry_run:
        states, due = due_stages(folder, loaded, selection)
        rows = [(state.name, state.state, "run" if state.name in due else "-") for state in states]
        print_rows(("stage", "state", "would"), rows, as_json)
        return
    os.environ.setdefault("OMP_NUM_THREADS", str(loaded.machine.threads))
    device = pick_device(loaded.machine.device)
    with stop_on_signal() as stop, watching(err if as_json else out) as watcher:
        done = execute(loaded, folder, STAGES, watcher, selection=selection, device=device, stop_requested=stop)
        if done or not (folder / "report.html").exists():
            _write_report(folder)
    if as_json:
        print_json({"run": str(folder), "done": done})
    elif not done:
        what = "every stage" if selection == Selection() else "every chosen stage"
        out.print(f"nothing to do: {what} of {folder} is finished and unchanged")
    else:
        _print_scores(folder)
        out.print(f"done: {len(done)} stage(s); report: {folder / 'report.html'}; chat: glassbox chat {loaded.name}")


@app.command()
def status(run: RunName, runs: Runs = Path("runs"), as_json: AsJson = False) -> None:
    """Where each stage of a run stands, what it took, and whether the code has changed since."""
    folder = runs_.run_folder(run, runs)
    rows: list[tuple[Any, ...]] = []
    working = runs_.is_locked(folder)
    for state in runs_.stage_states(folder, runs_.read_recipe(folder)):
        name = "running" if working and state.state == "interrupted" else state.state
        used = runs_.read_attempt(folder / state.name)
        rows.append((state.name, name, used.get("seconds"), used.get("peak_memory_bytes"), state.drift))
    columns: tuple[str, ...] = ("stage", "state", "seconds", "peak_memory_bytes", "drift")
    if not as_json:
        columns = ("stage", "state", "time", "peak memory", "drift")
        rows = [
            (stage, state, duration(seconds) if seconds else "", size(peak) if peak else "", "other code" * drift)
            for stage, state, seconds, peak, drift in rows
        ]
    print_rows(columns, rows, as_json)


@app.command()
def verify(run: RunName, runs: Runs = Path("runs"), as_json: AsJson = False) -> None:
    """Re-hash the whole chain from raw input to final weights; exit code 3 and the file's name if anything differs."""
    folder = runs_.run_folder(run, runs)
    results = list(runs_.verify(folder))
    wrong = [sentence for _, _, sentences in results for sentence in sentences]
    print_rows(
        ("what", "files", "verdict"),
        [(what, count, "; ".join(sentences) or "as sealed") for what, count, sentences in results],
        as_json,
    )
    if wrong:
        raise IntegrityError(wrong[0])


@app.command()
def prune(run: RunName, runs: Runs = Path("runs")) -> None:
    """Delete earlier attempts and leftovers of killed processes."""
    folder = runs_.run_folder(run, runs)
    with runs_.locked(folder):
        out.print(f"{size(runs_.prune(folder))} freed")


@app.command()
def plan(
    recipe: RecipeFile,
    overrides: Overrides = None,
    device: Annotated[str, typer.Option(help="A device of the table in recipe/plan.py.")] = "h100",
    devices: Annotated[int, typer.Option(min=1, help="How many of them.")] = 1,
    utilisation: Annotated[float, typer.Option(min=0.001, max=1.0, help="Share of the peak that is reached.")] = 0.4,
    as_json: AsJson = False,
) -> None:
    """Before paying: the stage graph, and parameters, tokens, FLOPs, memory, time and money of each training stage."""
    from glassbox.recipe.plan import plan_recipe, plan_tables

    loaded = load_recipe(recipe_path(recipe), overrides or ())
    planned = plan_recipe(loaded, device=device, devices=devices, utilisation=utilisation)
    if as_json:
        print_json(planned)
        return
    for title, columns, rows in plan_tables(planned):
        out.print(f"\n{title}", style="bold")
        print_rows(columns, rows, False)


@app.command()
def report(run: RunName, runs: Runs = Path("runs")) -> None:
    """Write the run's page, report.html, from its artefacts."""
    out.print(str(_write_report(runs_.run_folder(run, runs))))


@app.command()
def inspect(
    run: RunName,
    step: Annotated[int, typer.Option(min=0, help="The training step, from 0.")],
    stage: Annotated[Optional[str], typer.Option(help="A pretraining stage; default the first.")] = None,  # noqa: UP045
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """What the model read at a step: documents, where they came from, and the text."""
    from glassbox.tokens.batches import PretrainData

    folder = runs_.run_folder(run, runs)
    recipe = runs_.read_recipe(folder)
    names = [name for name, settings in recipe.stages.items() if settings.kind == "pretrain"]
    name = stage or (names[0] if names else "")
    if name not in names:
        raise RequestError(f"'{name}' is no pretraining stage of this run (pretraining stages: {', '.join(names)})")
    made = runs_.finished_stage(folder, name)  # what it was made with, whatever the recipe says now
    settings = PretrainStage.model_validate(made["settings"])
    tokens = next(s for s in settings.inputs if runs_.finished_stage(folder, s)["gives"] == "tokens")
    data = PretrainData(folder / tokens, settings.phases, made["seed"])
    if step >= data.steps:
        raise RequestError(f"--step {step}: stage '{name}' has {data.steps} steps, counted from 0")
    rows = data.documents_at(step)
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    for row in rows:
        out.print(f"row {row.row}  source {row.source}  window {row.window}", style="bold")
        for piece in row.pieces:
            place = f"tokens {piece.first}-{piece.last} from token {piece.document_token} of the document"
            out.print(f"  {piece.id}  {piece.origin}:{piece.offset}  {place}")
            out.print("    " + piece.text[:200].replace("\n", "\n    "))


@app.command()
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


@app.command()
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


@app.command()
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


@app.command("import")
def import_(
    folder: Annotated[Path, typer.Argument(help="A folder in Hugging Face's form.")],
    out_folder: NewFolder,
    dtype: WeightType = None,
    as_json: AsJson = False,
) -> None:
    """Turn a Hugging Face model (Mistral, Mixtral, OLMoE, dots1, Qwen2, MiMo) into a model folder."""
    from glassbox.interchange.importing import import_model

    _print_done(out_folder, import_model(folder, out_folder, dtype), as_json)


@app.command("export")
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


@app.command()
def recipes(as_json: AsJson = False) -> None:
    """The shipped recipes."""
    rows = []
    for path in sorted(shipped().rglob("*.yaml")):
        recipe = load_recipe(path)
        rows.append((path.relative_to(shipped()).with_suffix("").as_posix(), recipe.description))
    print_rows(("recipe", "what it makes"), rows, as_json)


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="The new recipe file.")],
    start: Annotated[str, typer.Option("--like", help="The shipped recipe to start from.")] = "quickstart",
) -> None:
    """Start a recipe of your own as a copy of a shipped one."""
    if path.exists():
        raise RequestError(f"{path} exists already; choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(recipe_path(start).read_text(encoding="utf-8"), encoding="utf-8")
    out.print(f"{path} written; edit it, then: glassbox run {path}")


@app.command()
def schema() -> None:
    """JSON schema of a recipe, for editors."""
    sys.stdout.write(json.dumps(json_schema(), indent=1) + "\n")


def shipped() -> Path:
    """The folder of shipped recipes: beside the package when installed, at the top of a checkout."""
    beside = Path(__file__).parent / "recipes"
    return beside if beside.exists() else Path(__file__).parents[2] / "recipes"


def recipe_path(given: str) -> Path:
    """A recipe file as given, or the shipped recipe of that name."""
    path = Path(given)
    named = shipped() / f"{given}.yaml"
    return named if not path.exists() and named.exists() else path


def pick_device(wanted: str) -> str:
    """cpu or cuda. Raises RequestError if the recipe insists on a GPU that is not there."""
    if wanted == "cpu":
        return "cpu"
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise RequestError("machine.device is cuda, but PyTorch sees no GPU; set machine.device=auto")
    return "cuda" if torch.cuda.is_available() else "cpu"


def _write_report(folder: Path) -> Path:
    from glassbox.report.page import write_report

    return write_report(folder)


def _print_scores(folder: Path) -> None:
    from glassbox.report.scores import score_rows

    rows = score_rows(folder)
    if rows:
        out.print()
        print_rows(rows[0], list(rows[1:]), False)


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


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """glassbox: raw web pages and code to a served reasoning model, every step on record."""
    if version:
        out.print(f"glassbox {__version__}")
        raise typer.Exit


def main() -> None:
    """Entry point: run the command; an error is one sentence and an exit code, a traceback only with --debug."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    try:
        code = app(["--debug"] * debug + [a for a in arguments if a != "--debug"], standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except GlassboxError as error:
        _fail(error, error.exit_code, debug)
    except (KeyboardInterrupt, typer.Abort) as error:
        _fail(error, 130, debug, "stopped")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _fail(error, 1, debug, f"{error.filename or 'input or output'}: {error.strerror or error}")
    except Exception as error:  # noqa: BLE001 - the last line of defence: a sentence instead of a traceback
        if hasattr(error, "format_message"):  # a wrong command or option, whatever parser Typer builds on
            _fail(error, 2, debug, error.format_message())
        sentence = f"unexpected failure ({type(error).__name__}: {error}); `--debug` shows the traceback"
        _fail(error, 1, debug, sentence)


def _fail(error: BaseException, code: int, debug: bool, sentence: str | None = None) -> None:
    if debug:
        import traceback

        traceback.print_exception(error)
    err.print(f"glassbox: {sentence or error}")
    sys.exit(code)


if __name__ == "__main__":
    main()
