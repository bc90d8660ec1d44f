"""A batch script that carries a recipe out on many hosts."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from glassbox.cli.arguments import Overrides, RecipeFile, Runs, recipe_path
from glassbox.console import err
from glassbox.errors import RequestError
from glassbox.recipe.loading import load_recipe
from glassbox.recipe.loop import sizes_for
from glassbox.recipe.schema import Recipe
from glassbox.recipe.training import DpoStage, PretrainStage, SftStage

WARNING = 300
"""Seconds before the end of its time at which the scheduler warns the job: one step and one checkpoint have to fit."""
SETTLE = 20
"""Seconds of those that are left when processes that still run are killed."""
FIRST_PORT, PORTS = 20_000, 10_000
"""Where the processes meet on the first host: a port that follows from the job's number."""

SLURM = """\
#!/bin/bash
{directives}

export OMP_NUM_THREADS={threads}
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT={shutdown}  # seconds for a last checkpoint after a signal
{environment}
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun --kill-on-bad-exit=0{elastic} {python} -m torch.distributed.run \\
  --nnodes={hosts} --nproc-per-node={per_node} --max-restarts={restarts} \\
  --rdzv-backend=c10d --rdzv-id="$SLURM_JOB_ID.${{SLURM_RESTART_COUNT:-0}}" \\
  --rdzv-endpoint="$first:$(({first_port} + SLURM_JOB_ID % {ports}))" \\
  --signals-to-handle=SIGTERM,SIGINT,SIGUSR1 \\
  -m glassbox run {arguments} &
job=$!

# The scheduler's warning stops the run after a checkpoint, and the job waits for its next turn.
warned=
trap 'warned=1; kill -USR1 "$job"' USR1
trap 'kill -TERM "$job"' TERM
wait "$job"
code=$?
while kill -0 "$job" 2>/dev/null; do
  wait "$job"
  code=$?
done
if [ -n "$warned" ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


def launch(
    recipe: RecipeFile,
    overrides: Overrides = None,
    slurm: Annotated[bool, typer.Option("--slurm", help="For the scheduler Slurm, the only one there is.")] = False,
    nodes: Annotated[str, typer.Option(help="Hosts, or MIN:MAX to go on with fewer when some are lost.")] = "1",
    per_node: Annotated[int, typer.Option(min=1, help="Processes on each host, one a device.")] = 8,
    hours: Annotated[float, typer.Option(min=0.2, help="Time limit of the job; it goes on in its next turn.")] = 24.0,
    restarts: Annotated[int, typer.Option(min=0, help="New starts after a process was lost.")] = 3,
    partition: Annotated[Optional[str], typer.Option(help="Slurm's partition.")] = None,  # noqa: UP045
    account: Annotated[Optional[str], typer.Option(help="Slurm's account.")] = None,  # noqa: UP045
    runs: Runs = Path("runs"),
    path: Annotated[Optional[Path], typer.Option("--out", help="Write it here, not to the screen.")] = None,  # noqa: UP045
) -> None:
    """Write the batch script that carries a recipe out on several hosts of a cluster."""
    if not slurm:
        raise RequestError("say which scheduler the script is for: --slurm")
    file = recipe_path(recipe)
    loaded = load_recipe(file, overrides or ())
    fewest, most = _range(nodes)
    for count in sorted({fewest * per_node, most * per_node}):
        for sentence in misfits(loaded, count):
            err.print(f"glassbox: {sentence}")
    named = {"partition": partition, "account": account}
    text = SLURM.format(
        directives="\n".join(f"#SBATCH {one}" for one in _directives(loaded, fewest, most, per_node, hours, named)),
        threads=loaded.machine.threads,
        shutdown=WARNING - SETTLE,
        environment="".join(f"export {line}\n" for line in _environment(loaded, fewest < most)),
        python=shlex.quote(sys.executable),
        elastic=" --no-kill" if fewest < most else "",
        hosts=most if fewest == most else f"{fewest}:{most}",
        per_node=per_node,
        restarts=restarts,
        first_port=FIRST_PORT,
        ports=PORTS,
        arguments=shlex.join([str(file), *(overrides or ()), "--runs", str(runs)]),
    )
    if path is None:
        sys.stdout.write(text)
    else:
        path.write_text(text, encoding="utf-8")


def _directives(
    recipe: Recipe, fewest: int, most: int, per_node: int, hours: float, named: dict[str, str | None]
) -> list[str]:
    """What the job asks of the scheduler."""
    return [
        f"--job-name={recipe.name}",
        f"--nodes={most}" if fewest == most else f"--nodes={fewest}-{most}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={per_node * recipe.machine.threads}",
        *([f"--gpus-per-node={per_node}"] if recipe.machine.device != "cpu" else []),
        *(f"--{name}={value}" for name, value in named.items() if value),
        f"--time={int(hours)}:{int(hours * 60) % 60:02d}:00",
        f"--signal=B:USR1@{WARNING}",
        "--requeue",
        *(["--no-kill"] if fewest < most else []),
        "--open-mode=append",
        f"--output={recipe.name}-%j.log",
        f"--chdir={Path.cwd()}",
    ]


def _environment(recipe: Recipe, elastic: bool) -> list[str]:
    lines = ["NCCL_DEBUG=WARN"] if recipe.machine.device != "cpu" else []
    if elastic:
        lines += ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1  # a new start meets wherever process 0 then is"]
    return lines


def misfits(recipe: Recipe, processes: int) -> list[str]:
    """A sentence for each stage whose plan does not fit so many processes."""
    found = []
    for name, stage in recipe.stages.items():
        if isinstance(stage, (PretrainStage, SftStage, DpoStage)):
            try:
                sizes_for(stage.loop.parallel, processes)
            except RequestError as error:
                found.append(f"stage '{name}': {error}")
    return found


def _range(nodes: str) -> tuple[int, int]:
    fewest, _, most = nodes.partition(":")
    if not (fewest.isdigit() and (most or fewest).isdigit() and 0 < int(fewest) <= int(most or fewest)):
        raise RequestError(f"--nodes {nodes}: give a number of hosts, or MIN:MAX")
    return int(fewest), int(most or fewest)
