"""Memory and time of converting a synthetic Mixtral checkpoint to our form, to Hugging Face's again and to GGUF.

    python benchmarks/convert.py                    6.5 GB of bf16 in shards; needs four times that on disk
    python benchmarks/convert.py --layers 2         less; --folder DIR for another place than the temporary folder
    python benchmarks/convert.py --json             one JSON line per conversion

Each conversion is a process of its own: the peak is its whole resident memory, Python and libraries included, and the
check of logits at its end counts too.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from glassbox.interchange.exporting import export_model
from glassbox.interchange.gguf import export_gguf
from glassbox.interchange.importing import import_model
from glassbox.model.families import Sizes, to_config
from glassbox.model.names import hub_names, own_entries, parts, their_entries
from glassbox.model.tensors import Entry, write_tensors
from glassbox.recipe.network import Attention, Experts, Network
from glassbox.tokens.tokenizer import train_tokenizer

VOCAB = 32_000


def network(layers: int, dim: int) -> Network:
    return Network(
        dim=dim,
        layers=layers,
        attention=Attention(heads=dim // 128, kv_heads=max(1, dim // 512), head_dim=128),
        experts=Experts(count=8, top_k=2, hidden=2 * dim, normalise=True),
    )


class Noise:
    """Random bf16 tensors, made as they are read."""

    def __init__(self, entries: dict[str, Entry]):
        self.entries = entries

    def read(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        shape = self.entries[name].shape
        rows = len(range(*slice(start, stop).indices(shape[0])))
        generator = torch.Generator().manual_seed(start + len(name))
        block = torch.randn((min(rows, 64), *shape[1:]), generator=generator).mul_(0.02).bfloat16()
        repeats = [-(-rows // 64)] + [1] * (len(shape) - 1)
        return block.repeat(repeats)[:rows] + (1 if len(shape) == 1 else 0)


def make(folder: Path, layers: int, dim: int, shard_bytes: int) -> int:
    """A checkpoint in Hugging Face's form; its bytes."""
    made = network(layers, dim)
    config = to_config(Sizes(made, VOCAB, 4096))
    ours = own_entries(made, VOCAB, torch.bfloat16)
    entries = their_entries(parts(made, ours, hub_names(config["model_type"])), ours)
    folder.mkdir(parents=True)
    write_tensors(folder, Noise(entries), shard_bytes)
    (folder / "config.json").write_text(json.dumps(config))
    train_tokenizer(["a text of little use"], 300).save(str(folder / "tokenizer.json"))
    return sum(entry.bytes for entry in entries.values())


def convert(what: str, source: Path, out: Path, shard_bytes: int) -> None:
    """One conversion in this process, its figures as JSON on standard output."""
    torch.set_num_threads(1)
    start, before = time.monotonic(), _peak_bytes()
    if what == "import":
        done = import_model(source, out, shard_bytes=shard_bytes)
    elif what == "export hf":
        done = export_model(source, out, shard_bytes=shard_bytes)
    else:
        done = export_gguf(source, out)
    figures = {"what": what, "bytes": done.bytes, "seconds": round(time.monotonic() - start, 1)}
    print(json.dumps({**figures, "idle_bytes": before, "peak_bytes": _peak_bytes(), "largest": done.largest}))


def _peak_bytes() -> int:
    """The largest resident memory of this process so far (Linux; `ru_maxrss` would count its parent's)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON line per conversion instead of a table")
    parser.add_argument("--layers", type=int, default=15)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--shard-bytes", type=int, default=2 * 10**9)
    parser.add_argument("--folder", type=Path, help="where to work; default the system's temporary folder")
    parser.add_argument("--one", nargs=3, metavar=("WHAT", "SOURCE", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        convert(arguments.one[0], Path(arguments.one[1]), Path(arguments.one[2]), arguments.shard_bytes)
        return
    place = Path(tempfile.mkdtemp(prefix="convert-", dir=arguments.folder))
    try:
        size = make(place / "theirs", arguments.layers, arguments.dim, arguments.shard_bytes)
        if not arguments.json:
            print(f"{size / 1e9:.2f} GB of bf16 in shards of {arguments.shard_bytes / 1e9:.2f} GB")
            print(f"{'':10} {'seconds':>8} {'idle MB':>8} {'peak MB':>8}")
        steps = (("import", "theirs", "ours"), ("export hf", "ours", "again"), ("export gguf", "ours", "model.gguf"))
        for what, source, out in steps:
            command = [sys.executable, __file__, "--shard-bytes", str(arguments.shard_bytes), "--one"]
            command += [what, str(place / source), str(place / out)]
            row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            if arguments.json:
                print(json.dumps(row), flush=True)
            else:
                idle, peak = (round(row[key] / 1e6) for key in ("idle_bytes", "peak_bytes"))
                print(f"{what:11} {row['seconds']:7} {idle:8,} {peak:8,}", flush=True)
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
