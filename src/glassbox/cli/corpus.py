"""Commands on documents: why one was kept or dropped, and how far people agree."""

import shutil
from pathlib import Path
from typing import Annotated, Optional

import typer

from glassbox.cli.arguments import AsJson, RunName, Runs
from glassbox.console import out, print_json, print_rows
from glassbox.errors import RequestError
from glassbox.ledger import run as runs_
from glassbox.recipe.curation import CurateStage


def explain(
    run: RunName,
    document: Annotated[str, typer.Argument(help="A document's id, the first letters of it, or its address.")],
    text: Annotated[bool, typer.Option(help="Show the text, removed lines marked.")] = True,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Every decision about one document: rule, value and threshold, scores, and the lines removed from it."""
    from glassbox.curate.explain import explain as explained

    folder = runs_.run_folder(run, runs)
    found = explained(folder, runs_.read_recipe(folder), document)
    if as_json:
        print_json([one.as_data() for one in found])
        return
    for one in found:
        out.print(f"stage {one.stage}: {one.verdict()}", style="bold")
        for label, value in one.facts():
            out.print(f"  {label:<11} {value}")
        rows = [(a, b, c, f"{v:g}", f"{t:g}", "passes" if ok else "FAILS") for a, b, c, v, t, ok in one.rules]
        print_rows(("set", "rule", "statistic", "value", "threshold", "verdict"), rows, False)
        if text:
            for mark, line in one.shown():
                out.print(f"{mark} {line}")


def sheet(
    run: RunName,
    file: Annotated[Path, typer.Argument(help="Where to write the sheet, or a sheet with verdicts filled in.")],
    stage: Annotated[Optional[str], typer.Option(help="A curate stage; default the last.")] = None,  # noqa: UP045
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Check curation by hand: write a sheet of documents to judge; once it is filled in, say how far people agree."""
    from glassbox.curate.sheet import agreement, save

    folder = runs_.run_folder(run, runs)
    names = [name for name, one in runs_.read_recipe(folder).stages.items() if isinstance(one, CurateStage)]
    name = stage or (names[-1] if names else "")
    if name not in names:
        raise RequestError(f"'{name}' is no curate stage of this run (curate stages: {', '.join(names)})")
    if not file.exists():
        made = folder / name / "sheet.csv"
        if not made.exists():
            raise RequestError(f"stage '{name}' left no sheet; run it first, with sheet above 0")
        shutil.copyfile(made, file)
        if as_json:
            print_json({"written": str(file)})
            return
        out.print(f"{file} written; fill in the column verdict (keep or drop), then: glassbox sheet {run} {file}")
        return
    found = agreement(file, folder / name)
    save(found, folder / f"agreement-{name}.json")
    if as_json:
        print_json(found)
        return
    out.print(
        f"{found['agreement']:.1%} of {found['documents']} documents judged alike "
        f"[{found['low']:.1%}, {found['high']:.1%}], kappa {found['kappa']:.2f}"
    )
    print_rows(("human/machine", "documents"), list(found["human/machine"].items()), False)
