"""The command line with stages that do next to nothing: `python toy.py run RECIPE ...`, alone or in several processes.

What the stage of all processes does is in TOY, a JSON object: {"do": "sum" | "raise" | "kill" | "wait", "rank": who,
"code": with which exit code}.
"""

import json
import os
import signal
import sys
import time
from typing import Any

from glassbox import cli, stages
from glassbox.errors import GlassboxError, Interrupted, RequestError
from glassbox.ledger.workspace import Inputs, Workspace

RECIPE = """\
name: toy
machine: {device: cpu}
stages:
  documents: {kind: curate, sources: [{name: notes, format: text, path: toy.yaml}]}
  tokenizer: {kind: tokenizer, from: documents, vocab_size: 300}
  tokens: {kind: tokenize, from: [documents, tokenizer]}
  base:
    kind: pretrain
    from: tokens
    model: {dim: 8, layers: 1, attention: {heads: 1, kv_heads: 1}, hidden: 8}
    phases: [{name: all, steps: 2, context: 16, rows: 2, mixture: {notes: 1.0}}]
    optimizer: {lr: 1.0e-3}
"""


def run(config: Any, inputs: Inputs, workspace: Workspace) -> None:
    import torch
    import torch.distributed as dist

    if config.kind != "pretrain":
        assert not dist.is_initialized()
        assert "WORLD_SIZE" not in os.environ
        workspace.path("made").write_text(config.kind)
        return
    task = json.loads(os.environ["TOY"])
    mine = workspace.rank == task.get("rank")
    assert workspace.rank == (dist.get_rank() if dist.is_initialized() else 0)
    assert (inputs.one("tokens") / "made").read_text() == "tokenize"
    for step in range(200 if task["do"] == "wait" else 5):
        values = torch.tensor([1.0 + workspace.rank, float(workspace.stop_requested())])
        if dist.is_initialized():
            dist.all_reduce(values)
        workspace.metric(step, total=float(values[0]))
        if values[1]:
            raise Interrupted("stopped on request")
        if task["do"] == "raise" and mine and step == 2:
            raise (RequestError if task["code"] == 2 else GlassboxError)("the toy is broken")
        if task["do"] == "kill" and mine and step == 2 and not workspace.path("killed").exists():
            workspace.path("killed").touch()
            workspace.path("checkpoints", "step-1").mkdir(parents=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if task["do"] == "wait":
            time.sleep(0.05)


if __name__ == "__main__":
    stages.WHERE.update(dict.fromkeys(("curate", "tokenizer", "tokenize", "pretrain"), "tests.processes.toy"))
    if "LOCAL_RANK" not in os.environ and "--count" in sys.argv:
        from glassbox.processes.host import start

        place = sys.argv.index("--count")
        count, restarts = sys.argv[place + 1 : place + 3]
        command = [sys.executable, *sys.argv[:place], *sys.argv[place + 3 :]]
        sys.exit(start(command, int(count), int(restarts), lambda text: print(text, file=sys.stderr)))  # noqa: T201
    cli.main()
