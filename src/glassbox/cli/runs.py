"""Commands on recipes and runs: carry out, look at, check."""

import json
import math
import os
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from glassbox.cli.arguments import AsJson, Overrides, RecipeFile, RunName, Runs, recipe_path
from glassbox.console import err, out, print_json, print_rows, stop_on_signal, watching
from glassbox.errors import IntegrityError, RequestError
from glassbox.ledger import run as runs_
from glassbox.ledger.record import incidents, read_records
from glassbox.ledger.runner import Selection, due_stages, execute
from glassbox.processes import taking_part
from glassbox.processes.host import PATIENCE, start
from glassbox.recipe.loading import load_recipe
from glassbox.recipe.loop import sizes_for
from glassbox.recipe.schema import Recipe
from glassbox.recipe.training import DpoStage, GrpoStage, PretrainStage, SftStage
from glassbox.report.format import duration, size
from glassbox.stages import STAGES, TOGETHER

if TYPE_CHECKING:
    from glassbox.processes.crew import Crew


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
    nproc: Annotated[int, typer.Option(min=1, help="Processes on this host that train together.")] = 1,
    restarts: Annotated[int, typer.Option(min=0, help="With --nproc: new starts after a process was lost.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Carry out a recipe, or go on with it: what is finished and unchanged is not done again."""
    with taking_part() as crew:
        loaded = load_recipe(recipe_path(recipe), overrides or ())
        folder = runs / loaded.name
        if only and (first or last):
            raise RequestError("--only names one stage; leave out --from and --to")
        selection = Selection(only or first, only or last, frozenset(fresh or ()))
        if dry_run:
            states, due = due_stages(folder, loaded, selection)
            rows = [(state.name, state.state, "run" if state.name in due else "-") for state in states]
            if crew is None or crew.rank == 0:
                print_rows(("stage", "state", "would"), rows, as_json)
            return
        os.environ.setdefault("OMP_NUM_THREADS", str(loaded.machine.threads))
        if crew is None:
            require_plans(folder, loaded, selection, nproc)
            if nproc > 1:
                command = [sys.executable, "-m", "glassbox", *sys.argv[1:]]
                raise typer.Exit(start(command, nproc, restarts, lambda sentence: err.print(f"glassbox: {sentence}")))
        _run_here(loaded, folder, selection, crew, as_json)


def require_plans(folder: Path, recipe: Recipe, selection: Selection, processes: int) -> None:
    """Raise RequestError if the plan of a stage that would be carried out now does not fit so many processes."""
    _, due = due_stages(folder, recipe, selection)
    for name, stage in recipe.stages.items():
        if name in due and isinstance(stage, (PretrainStage, SftStage, DpoStage, GrpoStage)):
            try:
                sizes_for(stage.loop.parallel, processes if stage.kind in TOGETHER else 1)
            except RequestError as error:
                raise RequestError(f"stage '{name}': {error}") from None


def _run_here(recipe: Recipe, folder: Path, selection: Selection, crew: "Crew | None", as_json: bool) -> None:
    """This process's part of a run: process 0, or the only one, carries the recipe out and says what came of it."""
    device = pick_device(recipe.machine.device)
    leads = crew is None or crew.rank == 0
    with stop_on_signal(_deadline(recipe.machine.hours, crew.since if crew else time.time()), leads) as stop:
        if crew is not None and not leads:
            crew.follow(STAGES, stop)
            return
        if crew is not None:
            require_plans(folder, recipe, selection, crew.count)
        with watching(err if as_json else out) as watcher:
            done = execute(
                recipe,
                folder,
                crew.leading(STAGES, TOGETHER) if crew else STAGES,
                watcher,
                selection=selection,
                device=device,
                stop_requested=stop,
                patience=PATIENCE if crew else 0.0,
            )
            if done or not (folder / "report.html").exists():
                _write_report(folder)
    if as_json:
        print_json({"run": str(folder), "done": done})
    elif not done:
        what = "every stage" if selection == Selection() else "every chosen stage"
        out.print(f"nothing to do: {what} of {folder} is finished and unchanged")
    else:
        _print_scores(folder)
        out.print(f"done: {len(done)} stage(s); report: {folder / 'report.html'}; chat: glassbox chat {recipe.name}")


def _deadline(hours: float | None, since: float) -> float:
    """When a run that started at `since` has to begin to stop."""
    return math.inf if hours is None else since + 3600 * hours - min(300.0, 180 * hours)


def status(run: RunName, runs: Runs = Path("runs"), as_json: AsJson = False) -> None:
    """Where each stage of a run stands, what it took, what happened in it, and whether the code has changed since."""
    folder = runs_.run_folder(run, runs)
    rows: list[tuple[Any, ...]] = []
    working, records = runs_.is_locked(folder), read_records(folder)
    for state in runs_.stage_states(folder, runs_.read_recipe(folder)):
        name = "running" if working and state.state == "interrupted" else state.state
        used = runs_.read_attempt(folder / state.name)
        events = Counter(record["what"] for record in incidents(records, state.name, state.fingerprint))
        rows.append((state.name, name, used.get("seconds"), used.get("peak_memory_bytes"), dict(events), state.drift))
    columns: tuple[str, ...] = ("stage", "state", "seconds", "peak_memory_bytes", "events", "drift")
    if not as_json:
        columns = ("stage", "state", "time", "peak memory", "events", "drift")
        rows = [
            (
                stage,
                state,
                duration(seconds) if seconds else "",
                size(peak) if peak else "",
                ", ".join(f"{count} x {what}" for what, count in events.items()),
                "other code" * drift,
            )
            for stage, state, seconds, peak, events, drift in rows
        ]
    print_rows(columns, rows, as_json)


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


def prune(run: RunName, runs: Runs = Path("runs")) -> None:
    """Delete earlier attempts and leftovers of killed processes."""
    folder = runs_.run_folder(run, runs)
    with runs_.locked(folder):
        out.print(f"{size(runs_.prune(folder))} freed")


def plan(
    recipe: RecipeFile,
    overrides: Overrides = None,
    device: Annotated[str, typer.Option(help="A device of the table in recipe/plan.py.")] = "h100",
    devices: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="How many, for plans that leave `shard` open; default as few as a plan can do with."),
    ] = None,
    utilisation: Annotated[float, typer.Option(min=0.001, max=1.0, help="Share of the peak that is reached.")] = 0.4,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Before paying: the stage graph, the phases of pretraining and how often they read each source; parameters,
    tokens, FLOPs, memory, time and money of each training stage."""
    from glassbox.recipe.plan import plan_recipe, plan_tables

    loaded = load_recipe(recipe_path(recipe), overrides or ())
    sizes = _token_sizes(runs / loaded.name, loaded)
    planned = plan_recipe(loaded, device=device, devices=devices, utilisation=utilisation, sizes=sizes)
    if as_json:
        print_json(planned)
        return
    for title, columns, rows in plan_tables(planned):
        out.print(f"\n{title}", style="bold")
        print_rows(columns, rows, False)


def _token_sizes(folder: Path, recipe: Recipe) -> dict[str, dict[str, int]]:
    """Training tokens of each shard, for the tokenize stages that are finished in the recipe's run."""
    from glassbox.tokens.shards import TokenFolder

    names = [name for name, stage in recipe.stages.items() if stage.gives == "tokens" and (folder / name).exists()]
    states = runs_.stage_states(folder, recipe) if names else ()
    finished = [state.name for state in states if state.state == "finished"]
    return {name: TokenFolder(folder / name).train_sizes for name in names if name in finished}


def report(run: RunName, runs: Runs = Path("runs")) -> None:
    """Write the run's page, report.html, from its artefacts."""
    out.print(str(_write_report(runs_.run_folder(run, runs))))


def inspect(
    run: RunName,
    step: Annotated[int, typer.Option(min=0, help="The training step, from 0.")],
    stage: Annotated[Optional[str], typer.Option(help="A pretraining stage; default the first.")] = None,  # noqa: UP045
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """What the model read at a step: documents, where they came from, and the text."""
    from glassbox.tokens.batches import PretrainData
    from glassbox.tokens.order import data_step

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
    summary = json.loads((folder / name / "summary.json").read_text(encoding="utf-8"))
    rows = data.documents_at(data_step(step, data.steps, summary.get("replaced", [])))
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    for row in rows:
        tangled = "  tangled from:" if row.tangled else ""
        out.print(f"row {row.row}  source {row.source}  window {row.window}{tangled}", style="bold")
        for piece in row.pieces:
            place = f"tokens {piece.first}-{piece.last} from token {piece.document_token} of the document"
            out.print(f"  {piece.id}  {piece.origin}:{piece.offset}  {place}")
            out.print("    " + piece.text[:200].replace("\n", "\n    "))


def pick_device(wanted: str) -> str:
    """cpu or cuda. Raises RequestError if the recipe insists on a GPU that is not there, or if this host has fewer GPUs
    than processes."""
    if wanted == "cpu":
        return "cpu"
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise RequestError("machine.device is cuda, but PyTorch sees no GPU; set machine.device=auto")
    if not torch.cuda.is_available():
        return "cpu"
    if int(os.environ.get("LOCAL_RANK", "0")) >= torch.cuda.device_count():
        raise RequestError(f"more processes than GPUs on this host, which has {torch.cuda.device_count()}")
    return "cuda"


def _write_report(folder: Path) -> Path:
    from glassbox.report.page import write_report

    return write_report(folder)


def _print_scores(folder: Path) -> None:
    from glassbox.report.scores import score_rows

    rows = score_rows(folder)
    if rows:
        out.print()
        print_rows(rows[0], list(rows[1:]), False)
