"""Does curated text teach more? The same small model on one source raw, through the rules, and fully curated.

    python experiments/curation.py --out runs/curation-proof

dots.llm1 trains a model of 1.5 billion parameters on its own web data and on TxT360 and compares scores
(arXiv:2506.05767, section 4.5). Here a model of a million parameters reads the same number of tokens of each of three
curations of the same pages (`curation.yaml`), three times with other weights and another order, and is measured on text
that none of them holds (`pages.py`). Everything is kept in the folder given and gone on with when the command is given
again.
"""

import argparse
import math
import multiprocessing
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # One thread a process, said before the libraries that ask are imported; and `experiments` as a package.
    os.environ |= {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from numpy.typing import NDArray

from experiments.figures import Band, band_chart, difference, table, with_spread
from experiments.pages import Page, library_gold, read_gold, read_pages, split
from experiments.training import Plan, plain, read, train
from glassbox.console import out, watching
from glassbox.errors import GlassboxError, RequestError
from glassbox.ledger.runner import execute
from glassbox.ledger.workspace import read_metrics
from glassbox.ledger.writing import atomic_open, write_json
from glassbox.recipe.loading import build, parse
from glassbox.recipe.network import Attention, Network
from glassbox.recipe.schema import Recipe
from glassbox.stages import STAGES

CRAWL = """
name: pages
seed: 1
stages:
  crawl: {kind: crawl, site: pydoc}
"""
RECIPE = Path(__file__).with_suffix(".yaml")
SETS = {"prose": "prose", "gold": "all gold text", "pages": "whole pages, uncleaned"}
"""What is measured, and what it is called: the first is what the claim is about, the last what raw text is like."""
PLAN = Plan(
    Network(dim=128, layers=4, hidden=384, attention=Attention(heads=4, kv_heads=2), tie_embeddings=True, init_std=0.08)
)


def curate(recipe_file: Path, pages: Path, folder: Path) -> Recipe:
    """The curations, the tokenizer and the tokens, through the ledger: what is there and unchanged stays."""
    recipe = _recipe(recipe_file.read_text(encoding="utf-8").replace("PAGES", str(pages.resolve())))
    with watching(out) as watcher:
        execute(recipe, folder, STAGES, watcher)
    return recipe


def arms_of(recipe: Recipe) -> list[str]:
    """The curations compared, in the recipe's order."""
    return [name for name, stage in recipe.stages.items() if stage.kind == "curate"]


def train_all(folder: Path, arms: Sequence[str], seeds: Sequence[int], plan: Plan, workers: int) -> None:
    """Every arm with every seed, `workers` processes at a time; a seed's arms side by side."""
    jobs = [
        (folder / "pages", folder / "data" / f"{arm}_tokens", model_folder(folder, arm, seed), seed, plan)
        for seed in seeds
        for arm in arms
    ]
    if workers == 1:
        _count(map(_train, jobs), len(jobs))
        return
    with multiprocessing.get_context("spawn").Pool(workers, maxtasksperchild=1) as pool:
        _count(pool.imap_unordered(_train, jobs), len(jobs))


def _count(trained: Iterable[str], total: int) -> None:
    for done, name in enumerate(trained, 1):
        out.print(f"+ {name:<12} trained  {done}/{total}")


def _train(job: tuple[Path, Path, Path, int, Plan]) -> str:
    train(*job)
    return job[2].name


def model_folder(folder: Path, arm: str, seed: int) -> Path:
    """Where a model is trained."""
    return folder / "models" / f"{arm}-{seed}"


def results(folder: Path, arms: Sequence[str], seeds: Sequence[int], plan: Plan) -> dict[str, Any]:
    """What `results.json` holds: the pages, each arm's size and scores, differences of the arms pair by pair."""
    scores = {arm: [read(model_folder(folder, arm, seed) / "scores.json") for seed in seeds] for arm in arms}
    found: dict[str, Any] = {"pages": read(folder / "pages" / "pages.json"), "plan": plain(plan), "arms": {}}
    for arm in arms:
        last = [row for row in read(folder / "data" / arm / "funnel.json") if row["source"] == "pages"][-1]
        sizes = read(folder / "data" / f"{arm}_tokens" / "tokens.json")["sources"]["pages"]["train"]
        found["arms"][arm] = {
            "documents": last["documents"],
            "bytes": last["bytes"],
            "tokens": sizes["tokens"],
            "epochs": scores[arm][0]["epochs"],
            "bits_per_byte": {
                name: [_bits(one["sets"][name]) for one in scores[arm]]
                for name in SETS
                if name in scores[arm][0]["sets"]
            },
        }
    pairs = [(a, b) for k, a in enumerate(arms) for b in arms[k + 1 :]]
    found["differences"] = {
        f"{b} - {a}": {name: asdict(difference(*_paired(scores[a], scores[b], name))) for name in SETS}
        for a, b in pairs
    }
    return found


def curves(folder: Path, arm: str, seeds: Sequence[int], name: str, plan: Plan) -> Band:
    """Held-out bits per byte of a set over the tokens read."""
    key = f"bits_per_byte/{name}"
    lines = [[row for row in read_metrics(model_folder(folder, arm, seed)) if key in row] for seed in seeds]
    xs = [row["step"] * plan.rows * plan.context for row in lines[0]]
    return Band(arm, xs, np.array([[row[key] for row in line] for line in lines]))


def report(found: dict[str, Any]) -> str:
    """The tables of `results.md`."""
    arms = found["arms"]
    sizes = [["arm", "documents", "MB", "tokens", "times read"]]
    sizes += [
        [arm, f"{a['documents']:,}", f"{a['bytes'] / 1e6:.2f}", f"{a['tokens']:,}", f"{a['epochs']:.2f}"]
        for arm, a in arms.items()
    ]
    losses = [["held-out bits per byte", *arms]]
    losses += [[SETS[name], *(with_spread(a["bits_per_byte"][name]) for a in arms.values())] for name in SETS]
    gaps = [["difference", "text", "mean", "95% over seeds", "95% over texts"]]
    gaps += [
        [pair, SETS[name], f"{d['mean']:+.4f}", _span(d, "seeds"), _span(d, "texts")]
        for pair, sets in found["differences"].items()
        for name, d in sets.items()
    ]
    return "\n\n".join(table(rows) for rows in (sizes, losses, gaps)) + "\n"


def gather(folder: Path, given: Path | None, gold: Path | None, share: float) -> Path:
    """The pages, read and parted, in `folder/pages`; without a folder given, those of the documentation server."""
    pages = folder / "pages"
    asked = {"pages": str(given), "gold": str(gold), "share": share}
    if read(pages / "asked.json") == asked and (pages / "pages.json").exists():
        return pages
    if given is None:
        with watching(out) as watcher:
            execute(_recipe(CRAWL), folder / "crawl", STAGES, watcher)
        found = read_pages(folder / "crawl" / "crawl" / "pages")
        golden = library_gold(found)
    elif gold is None:
        raise RequestError("--pages needs --gold: the text to measure on has to be made by other hands than ours")
    else:
        found = read_pages(given)
        golden = _of(read_gold(gold), found)
    split(found, golden, share, pages)
    write_json(pages / "asked.json", asked)
    return pages


def _of(gold: dict[str, str], pages: Iterable[Page]) -> dict[str, str]:
    return {page.url: gold[page.url] for page in pages if page.url in gold}


def main(arguments: Sequence[str] | None = None, plan: Plan = PLAN) -> None:
    """Carry the experiment out; prints its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for everything the experiment makes")
    parser.add_argument("--pages", type=Path, help="folder of WARC, JSONL or HTML pages (default: pydoc's)")
    parser.add_argument("--gold", type=Path, help='their gold text: JSON lines {"url": ..., "text": ...}')
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="the curations to compare (default: curation.yaml)")
    parser.add_argument("--held-out", type=float, default=0.15, help="share of the pages with gold text held out")
    parser.add_argument("--seeds", type=int, default=3, help="models of each arm")
    parser.add_argument("--steps", type=int, default=plan.steps, help="optimizer steps of 2,048 tokens")
    parser.add_argument("--workers", type=int, default=2, help="processes at a time, one thread each")
    asked = parser.parse_args(arguments)
    folder, plan, seeds = asked.out, replace(plan, steps=asked.steps), range(1, asked.seeds + 1)
    pages = gather(folder, asked.pages, asked.gold, asked.held_out)
    arms = arms_of(curate(asked.recipe, pages, folder / "data"))
    train_all(folder, arms, seeds, plan, asked.workers)
    found = results(folder, arms, seeds, plan)
    write_json(folder / "results.json", found)
    write(folder / "results.md", report(found))
    for name, called in SETS.items():
        bands = [curves(folder, arm, seeds, name, plan) for arm in arms]
        title = f"Held-out bits per byte: {called}"
        chart = band_chart(bands, title=title, x_label="tokens read", y_label="lower is better; band: range of seeds")
        write(folder / f"{name}.svg", chart)
    out.print(report(found))


def write(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic_open(path, "w") as file:
        file.write(text)


def _recipe(text: str) -> Recipe:
    return build(*parse(text, RECIPE.name), RECIPE.name)


def _paired(a: list[Any], b: list[Any], name: str) -> tuple[NDArray[np.float64], ...]:
    nats = [np.array([one["sets"][name]["nats"] for one in arm]) for arm in (a, b)]
    return nats[0], nats[1], np.array(a[0]["sets"][name]["bytes"])


def _bits(one: dict[str, list[float]]) -> float:
    return sum(one["nats"]) / math.log(2) / sum(one["bytes"])


def _span(d: dict[str, float], over: str) -> str:
    return f"{d[f'{over}_low']:+.4f} to {d[f'{over}_high']:+.4f}"


if __name__ == "__main__":
    try:
        main()
    except GlassboxError as error:
        sys.exit(str(error))
