"""Work on parts by worker processes: of this machine, and of a Ray cluster of several nodes."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from glassbox.curate import flow
from glassbox.errors import GlassboxError, RequestError
from glassbox.recipe.curation import Engine


def double(folder: Path, number: int) -> None:
    (folder / f"{number}.txt").write_text(str(2 * number))


def refuse(folder: Path, number: int) -> None:
    if number == 2:
        raise RequestError(f"part {number} of {folder.name} is wrong")


def test_workers_are_as_many_as_parts_and_memory_allow() -> None:
    counts = [
        flow.worker_count(Engine(workers=workers, memory=memory), parts, size)
        for workers, memory, parts, size in (
            *((8, 4_000_000_000, 3, 10**9), (8, 2_200_000_000, 99, 10**9), (2, 10**10, 99, 10**9)),
            *((4, 256_000_000, 9, 10**9), (4, 10**10, 9, 40_000_000), (4, 10**10, 9, 0)),
        )
    ]
    assert counts == [3, 3, 2, 1, 2, 1]


@pytest.mark.parametrize("workers", [1, 2])
def test_every_part_is_done_once(tmp_path: Path, workers: int) -> None:
    done = sorted(flow.each(double, tmp_path, range(5), Engine(workers=workers), 10**9))
    assert done == [0, 1, 2, 3, 4]
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {f"{n}.txt": str(2 * n) for n in range(5)}


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_ours_arrives_as_it_is(tmp_path: Path, workers: int) -> None:
    with pytest.raises(RequestError, match=f"part 2 of {tmp_path.name} is wrong"):
        list(flow.each(refuse, tmp_path, range(4), Engine(workers=workers), 10**9))


def die(folder: Path, number: int) -> None:
    if number == 2:
        os._exit(9)


def test_a_worker_that_dies_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(GlassboxError, match=r"a worker process died, .* finished parts are kept"):
        list(flow.each(die, tmp_path, range(4), Engine(workers=2), 10**9))


CLUSTER = """
import json, sys
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from glassbox.curate import flow, parts
from glassbox.curate.stage import run
from glassbox.ledger.workspace import Inputs, Workspace
from glassbox.recipe.curation import CurateStage
parts.PART_BYTES = flow.WORTH_BYTES = 20_000
settings, given, out = json.loads(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
cluster.add_node(num_cpus=1)
ray.init(address=cluster.address, log_to_driver=False)
nodes = len({node["NodeID"] for node in ray.nodes() if node["Alive"]})
engine = {"runner": "ray", "address": cluster.address, "workers": 2}
out.mkdir()
run(CurateStage(kind="curate", engine=engine, **settings), Inputs(), Workspace(out))
print(json.dumps({"nodes": nodes}))
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="needs the ray library")
def test_a_cluster_of_two_nodes_leaves_the_same_bytes(tmp_path: Path) -> None:
    lines = [
        json.dumps({"text": f"Number {n} of the texts that were given to the cluster. " * (n % 3 + 1)})
        for n in range(300)
    ]
    (tmp_path / "texts").mkdir()
    for part in range(3):
        (tmp_path / "texts" / f"{part}.jsonl").write_text("\n".join(lines[part * 100 : part * 100 + 100]) + "\n")
    settings = {"sources": [{"name": "a", "format": "jsonl", "path": str(tmp_path / "texts"), "rules": ["c4"]}]}
    given = json.dumps(settings)
    code = CLUSTER.split("cluster = Cluster")[0] + (
        "out.mkdir()\nrun(CurateStage(kind='curate', engine={'workers': 1}, **settings), Inputs(), Workspace(out))"
    )
    code = code.replace("import ray\nfrom ray.cluster_utils import Cluster\n", "")
    # Alone first: it leaves the compiled kernels for the nodes.
    subprocess.run([sys.executable, "-c", code, given, "", str(tmp_path / "alone")], check=True, timeout=600)
    cluster = subprocess.run(
        [sys.executable, "-c", CLUSTER, given, "", str(tmp_path / "cluster")],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert cluster.returncode == 0, cluster.stderr[-2000:]
    assert json.loads(cluster.stdout.strip().splitlines()[-1]) == {"nodes": 2}
    files = [
        {
            str(path.relative_to(tmp_path / name)): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
        for name in ("cluster", "alone")
    ]
    assert files[0] == files[1]
    assert sum(name.startswith("documents/") for name in files[0]) > 2
