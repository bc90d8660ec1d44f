"""Real training over processes of one host and of two: stopped, killed and started again, it ends as if left alone."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from glassbox.ledger.workspace import read_metrics
from tests.tiny import HEAD, write_notes

pytestmark = pytest.mark.slow

RECIPE = (
    HEAD.replace("name: tiny", "name: small").replace("NOTES", "notes")
    + """\
  base:
    kind: pretrain
    from: tokens
    model: {dim: 32, layers: 2, attention: {heads: 4, kv_heads: 2, window: 32}, hidden: 64}
    phases:
      - {name: all, steps: 30, context: 64, rows: 8, mixture: {notes: 0.5, problems: 0.5}}
    optimizer: {lr: 5.0e-3}
    loop: {checkpoint_every: 2, log_every: 1, micro_rows: 2}
"""
)
RUN = [sys.executable, "-m", "glassbox", "run", "small.yaml"]
WEIGHTS = Path("small", "base", "model", "model.safetensors")


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the recipe, its run up to the tokens in `ready`, and one of two processes left alone in `calm`."""
    folder = tmp_path_factory.mktemp("processes")
    write_notes(folder / "notes")
    (folder / "small.yaml").write_text(RECIPE)
    subprocess.run([*RUN, "--to", "tokens", "--runs", "ready"], cwd=folder, check=True, capture_output=True)
    shutil.copytree(folder / "ready", folder / "calm")
    subprocess.run([*RUN, "--runs", "calm", "--nproc", "2"], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def started(calm: Path, tmp_path: Path) -> Path:
    """The recipe's run up to the tokens, in `runs` of a folder of its own."""
    shutil.copytree(calm / "ready", tmp_path / "runs")
    shutil.copytree(calm / "notes", tmp_path / "notes")
    shutil.copy(calm / "small.yaml", tmp_path)
    return tmp_path


def go(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [*RUN, "--nproc", "2", *arguments]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_step(folder: Path, step: int) -> None:
    until = time.monotonic() + 120
    while not [row for row in read_metrics(folder / "runs/small/base") if row["step"] >= step]:
        assert time.monotonic() < until
        time.sleep(0.01)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, err = process.communicate(timeout=180)
    return process.returncode, err


def test_stopped_by_ctrl_c_then_killed_it_ends_with_the_same_weights(calm: Path, started: Path) -> None:
    process = go(started)
    wait_for_step(started, 3)
    process.send_signal(signal.SIGINT)
    code, err = ended(process)
    assert code == 130
    assert err.count("\n") == 2
    assert "glassbox: stopped on request; run the same command again to go on" in err

    process = go(started, "--restarts", "1")
    wait_for_step(started, 12)
    rank = random.choice(["0", "1"])
    children = {child.environ()["RANK"]: child for child in psutil.Process(process.pid).children()}
    children[rank].kill()
    code, err = ended(process)
    assert code == 0, err
    assert f"process {rank} of 2 was killed by signal 9; starting again" in err
    assert (started / "runs" / WEIGHTS).read_bytes() == (calm / "calm" / WEIGHTS).read_bytes()
    assert [row["step"] for row in read_metrics(started / "runs/small/base") if "loss" in row] == list(range(1, 31))


def torchrun(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--rdzv-backend", "c10d", *arguments, *RUN[1:]]


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """Two network namespaces joined by a cable: `<name>0` has the address 10.77.0.1 on an interface of its name."""
    name = f"gb{os.getpid() % 100_000}"
    names = [f"{name}h{number}" for number in range(2)]

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    try:
        for one in names:
            ip("netns", "add", one)
        ip("link", "add", names[0], "type", "veth", "peer", "name", names[1])
        for number, one in enumerate(names, 1):
            ip("link", "set", one, "netns", one)
            ip("-n", one, "address", "add", f"10.77.0.{number}/24", "dev", one)
            for interface in (one, "lo"):
                ip("-n", one, "link", "set", interface, "up")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("network namespaces are not permitted here")
    yield names
    for one in names:
        ip("netns", "delete", one)


def test_two_hosts_end_with_the_weights_of_one(calm: Path, started: Path, hosts: list[str]) -> None:
    agents = []
    for number, host in enumerate(hosts):
        where = ("--rdzv-endpoint=10.77.0.1:29400", f"--local-addr=10.77.0.{number + 1}")
        agent = torchrun("--nnodes=2", "--nproc-per-node=1", *where, f"--rdzv-conf=is_host={int(number == 0)}")
        environment = {**os.environ, "GLOO_SOCKET_IFNAME": host}
        agents.append(subprocess.Popen(["ip", "netns", "exec", host, *agent], cwd=started, env=environment))
    assert [agent.wait(180) for agent in agents] == [0, 0]
    assert (started / "runs" / WEIGHTS).read_bytes() == (calm / "calm" / WEIGHTS).read_bytes()


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(folder / "small/base") if "loss" in row]


@pytest.mark.matrix
def test_when_a_host_is_lost_the_others_go_on_with_the_same_data(calm: Path, started: Path) -> None:
    quick = "--rdzv-conf=last_call_timeout=3,keep_alive_interval=1,keep_alive_max_attempt=3"
    port = free_port()
    command = torchrun(
        "--nnodes=1:2", "--nproc-per-node=1", "--max-restarts=3", f"--rdzv-endpoint=localhost:{port}", quick
    )
    agents = []
    for _ in range(2):
        environment = {**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        agents.append(subprocess.Popen(command, cwd=started, env=environment))
        time.sleep(0.0 if len(agents) == 2 else 6.0)  # the first is the one where the agents meet
    wait_for_step(started, 8)
    second = psutil.Process(agents[1].pid)
    for process in [second, *second.children(recursive=True)]:
        process.kill()
    assert agents[0].wait(180) == 0
    agents[1].wait()
    assert losses(started / "runs") == pytest.approx(losses(calm / "calm"), rel=1e-5)


STUBS = {
    "srun": '#!/bin/sh\nwhile [ "${1#--}" != "$1" ]; do shift; done\nexec "$@"\n',
    "scontrol": '#!/bin/sh\nif [ "$1" = show ]; then echo localhost; else echo "$2" > requeued; fi\n',
}


@pytest.mark.matrix
def test_a_slurm_job_that_is_warned_goes_on_in_its_next_turn(calm: Path, started: Path) -> None:
    for name, text in STUBS.items():
        (started / name).write_text(text)
        (started / name).chmod(0o755)
    script = [sys.executable, "-m", "glassbox", "launch", "small.yaml", "--slurm", "--per-node", "2", "--out", "job.sh"]
    subprocess.run(script, cwd=started, check=True)
    job = free_port() - 20_000
    environment = {**os.environ, "PATH": f"{started}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "here"}
    environment |= {"SLURM_JOB_ID": str(job)}
    turn = subprocess.Popen(["bash", "job.sh"], cwd=started, env=environment)
    wait_for_step(started, 5)
    turn.send_signal(signal.SIGUSR1)
    assert turn.wait(120) != 0
    assert (started / "requeued").read_text().split() == [str(job)]
    assert not (started / "runs" / WEIGHTS).exists()
    turn = subprocess.Popen(["bash", "job.sh"], cwd=started, env=environment | {"SLURM_RESTART_COUNT": "1"})
    assert turn.wait(180) == 0
    assert (started / "runs" / WEIGHTS).read_bytes() == (calm / "calm" / WEIGHTS).read_bytes()
    assert [row["step"] for row in read_metrics(started / "runs/small/base") if "loss" in row] == list(range(1, 31))


def free_port() -> int:
    """A free port of those that a Slurm script may choose."""
    for port in range(20_000, 30_000):
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)):
                return port
    raise AssertionError("no free port")
