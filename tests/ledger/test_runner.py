"""Runs resume exactly, re-run only what changed, and show every change of an artefact."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest

from glassbox.errors import GlassboxError, IntegrityError, Interrupted, RequestError
from glassbox.ledger.record import read_records
from glassbox.ledger.run import is_locked, locked, prune, read_manifest, run_folder, stage_states, verify
from glassbox.ledger.runner import Selection, StageFunction, due_stages, execute
from glassbox.ledger.workspace import Inputs, Workspace
from glassbox.recipe.base import Stage
from glassbox.recipe.loading import build, parse
from glassbox.recipe.schema import Recipe

TEXT = """\
name: small
stages:
  problems: {kind: problems, train: 10, held_out: 5}
  documents: {kind: curate, sources: [{name: notes, format: text, path: PATH}]}
  tokenizer: {kind: tokenizer, from: documents, vocab_size: 300}
  tokens: {kind: tokenize, from: [documents, tokenizer]}
"""


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "raw" / "note.txt"
    path.parent.mkdir()
    path.write_text("a note")
    return path


@pytest.fixture
def recipe(raw: Path) -> Callable[..., Recipe]:
    def make(**changes: str) -> Recipe:
        text = TEXT.replace("PATH", str(raw.parent))
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        return build(*parse(text, "test.yaml"), "test.yaml")

    return make


class Log:
    def __init__(self) -> None:
        self.states: list[tuple[str, str]] = []

    def stage(self, name: str, state: str, seconds: float = 0.0) -> None:
        self.states.append((name, state))

    def progress(self, done: float, total: float, note: str) -> None: ...


def write_settings(config: Stage, inputs: Inputs, workspace: Workspace) -> None:
    """A stage whose artefact follows from its settings, seed and inputs."""
    told = [(artefact.name, (artefact.path / "out.txt").read_text()) for artefact in inputs.artefacts]
    workspace.path("out.txt").write_text(f"{config!r} {workspace.seed} {told}")
    workspace.metric(1, loss=1.0)


FUNCTIONS: dict[str, StageFunction] = dict.fromkeys(("problems", "curate", "tokenizer", "tokenize"), write_settings)
ALL = ["problems", "documents", "tokenizer", "tokens"]


def test_a_second_run_does_nothing(tmp_path: Path, recipe: Callable[..., Recipe]) -> None:
    run, log = tmp_path / "run", Log()
    assert sorted(execute(recipe(), run, FUNCTIONS, log)) == sorted(ALL)
    assert execute(recipe(), run, FUNCTIONS, log) == []
    assert log.states[-4:] == [(name, "unchanged") for name in recipe().order()]


@pytest.mark.parametrize(
    ("old", "new", "again"),
    [
        ("vocab_size: 300", "vocab_size: 301", {"tokenizer", "tokens"}),
        ("train: 10", "train: 11", {"problems"}),
        ("name: notes", "name: memos", {"documents", "tokenizer", "tokens"}),
        ("name: small", "name: small\nseed: 2", set(ALL)),
        ("name: small", "name: small\ndescription: other words\nmachine: {threads: 2}", set()),
    ],
)
def test_a_change_re_runs_that_stage_and_those_after_it(
    tmp_path: Path, recipe: Callable[..., Recipe], old: str, new: str, again: set[str]
) -> None:
    run = tmp_path / "run"
    execute(recipe(), run, FUNCTIONS, Log())
    assert set(execute(recipe(**{old: new}), run, FUNCTIONS, Log())) == again
    assert len(list((run / ".attempts").glob("*"))) == len(again) if again else not (run / ".attempts").exists()
    assert prune(run) > 0 or not again


def test_changed_raw_input_re_runs_what_read_it(tmp_path: Path, raw: Path, recipe: Callable[..., Recipe]) -> None:
    run = tmp_path / "run"
    execute(recipe(), run, FUNCTIONS, Log())
    raw.write_text("another note")
    assert set(execute(recipe(), run, FUNCTIONS, Log())) == {"documents", "tokenizer", "tokens"}


def test_fresh_only_from_and_to(tmp_path: Path, recipe: Callable[..., Recipe]) -> None:
    run = tmp_path / "run"
    with pytest.raises(RequestError, match="'documents', which is not finished"):
        execute(recipe(), run, FUNCTIONS, Log(), selection=Selection("tokens", "tokens"))
    assert execute(recipe(), run, FUNCTIONS, Log(), selection=Selection(last="documents")) == ["problems", "documents"]
    execute(recipe(), run, FUNCTIONS, Log())
    fresh = Selection(fresh=frozenset({"tokenizer"}))
    assert due_stages(run, recipe(), fresh)[1] == {"tokenizer", "tokens"}
    assert set(execute(recipe(), run, FUNCTIONS, Log(), selection=fresh)) == {"tokenizer", "tokens"}
    with pytest.raises(RequestError, match="'tokeniser' is no stage"):
        execute(recipe(), run, FUNCTIONS, Log(), selection=Selection(first="tokeniser"))


def test_every_flipped_bit_is_found_and_named(tmp_path: Path, raw: Path, recipe: Callable[..., Recipe]) -> None:
    run = tmp_path / "run"
    execute(recipe(), run, FUNCTIONS, Log())
    assert [sentence for _, _, wrong in verify(run) for sentence in wrong] == []
    files = [path for path in run.rglob("*") if path.is_file() and not path.name.startswith((".lock", ".raw-hashes"))]
    assert {"ledger.jsonl", "recipe.yaml", "manifest.json", "out.txt", "metrics.jsonl"} <= {f.name for f in files}
    for path in [*files, raw]:
        content = path.read_bytes()
        for position in {0, len(content) // 2, len(content) - 2}:
            flipped = bytearray(content)
            flipped[position] ^= 1
            path.write_bytes(bytes(flipped))
            try:
                found = " ".join(sentence for _, _, wrong in verify(run) for sentence in wrong)
            except (IntegrityError, RequestError) as error:
                found = str(error)
            assert path.name in found or path.parent.name in found, f"{path} at byte {position}: {found!r}"
        path.write_bytes(content)
    extra = run / "tokens" / "stray.txt"
    extra.write_text("x")
    assert any("stray.txt: not in the manifest" in s for _, _, wrong in verify(run) for s in wrong)


def test_a_failure_is_one_sentence_and_keeps_what_was_done(tmp_path: Path, recipe: Callable[..., Recipe]) -> None:
    run = tmp_path / "run"

    def full_disk(config: Stage, inputs: Inputs, workspace: Workspace) -> None:
        workspace.path("half.txt").write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(workspace.path("big.bin")))

    with pytest.raises(GlassboxError, match=r"stage 'tokenizer': .*big\.bin: No space left on device; mend it"):
        execute(recipe(), run, {**FUNCTIONS, "tokenizer": full_disk}, Log())
    assert read_manifest(run / "tokenizer") is None
    assert read_records(run)[-1]["event"] == "failed"
    assert set(execute(recipe(), run, FUNCTIONS, Log())) >= {"tokenizer", "tokens"}
    assert not (run / "tokenizer" / "half.txt").exists()


def test_a_stage_with_checkpoints_goes_on_where_it_was(tmp_path: Path, recipe: Callable[..., Recipe]) -> None:
    run, calls = tmp_path / "run", []

    def trains(config: Stage, inputs: Inputs, workspace: Workspace) -> None:
        marker = workspace.path("checkpoints", "step-1")
        calls.append(marker.exists())
        if not marker.exists():
            marker.parent.mkdir()
            marker.write_text("1")
            raise Interrupted("stopped on request")
        write_settings(config, inputs, workspace)

    functions = {**FUNCTIONS, "tokenize": trains}
    with pytest.raises(Interrupted):
        execute(recipe(), run, functions, Log())
    assert {state.name: state.state for state in stage_states(run, recipe())}["tokens"] == "interrupted"
    assert execute(recipe(), run, functions, Log()) == ["tokens"]
    assert calls == [False, True]


def test_a_kill_between_record_and_seal_leaves_the_stage_unfinished(
    tmp_path: Path, recipe: Callable[..., Recipe]
) -> None:
    run = tmp_path / "run"
    with patch("glassbox.ledger.runner.seal", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        execute(recipe(), run, FUNCTIONS, Log())
    assert not (run / "problems" / "manifest.json").exists()
    assert execute(recipe(), run, FUNCTIONS, Log()) == ALL
    assert [sentence for _, _, wrong in verify(run) for sentence in wrong] == []


def test_a_torn_last_record_is_cut_off(tmp_path: Path, recipe: Callable[..., Recipe]) -> None:
    run = tmp_path / "run"
    execute(recipe(), run, FUNCTIONS, Log(), selection=Selection(last="documents"))
    whole = (run / "ledger.jsonl").read_bytes()
    (run / "ledger.jsonl").write_bytes(whole + b'{"event": "sta')
    execute(recipe(), run, FUNCTIONS, Log())
    assert (run / "ledger.jsonl").read_bytes().startswith(whole + b'{"event": "started"')
    assert [sentence for _, _, wrong in verify(run) for sentence in wrong] == []


def test_nothing_mends_what_was_tampered_with(tmp_path: Path, recipe: Callable[..., Recipe]) -> None:
    run = tmp_path / "run"
    execute(recipe(), run, FUNCTIONS, Log())
    manifest = run / "tokens" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"kind": "tokenize"', '"kind": "tokenise"'))
    execute(recipe(), run, FUNCTIONS, Log())
    assert any("does not match the ledger" in sentence for _, _, wrong in verify(run) for sentence in wrong)
    (run / "problems" / "manifest.json").unlink()
    assert any("missing, though" in sentence for _, _, wrong in verify(run) for sentence in wrong)
    (run / "documents" / "manifest.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"documents.manifest\.json: damaged; delete"):
        execute(recipe(), run, FUNCTIONS, Log())


def test_a_stage_is_never_made_from_inputs_of_other_settings(tmp_path: Path, recipe: Callable[..., Recipe]) -> None:
    run, changed = tmp_path / "run", recipe(**{"name: notes": "name: memos"})
    execute(recipe(), run, FUNCTIONS, Log())
    with pytest.raises(RequestError, match="'documents', which was made with other settings"):
        execute(changed, run, FUNCTIONS, Log(), selection=Selection("tokenizer", "tokenizer"))
    assert execute(recipe(), run, FUNCTIONS, Log()) == []


def test_a_fresh_stage_makes_those_after_it_due_until_they_are_done(
    tmp_path: Path, recipe: Callable[..., Recipe]
) -> None:
    run, fresh = tmp_path / "run", frozenset({"documents"})
    execute(recipe(), run, FUNCTIONS, Log())
    again = Selection(last="documents", fresh=fresh)
    assert execute(recipe(), run, FUNCTIONS, Log(), selection=again) == ["documents"]
    assert any("inputs that have changed" in sentence for _, _, wrong in verify(run) for sentence in wrong)
    assert execute(recipe(), run, FUNCTIONS, Log()) == ["tokenizer", "tokens"]
    assert [sentence for _, _, wrong in verify(run) for sentence in wrong] == []


def test_raw_input_that_changes_while_it_is_read_is_an_error(
    tmp_path: Path, raw: Path, recipe: Callable[..., Recipe]
) -> None:
    def meddle(config: Stage, inputs: Inputs, workspace: Workspace) -> None:
        raw.write_text("a note, changed")

    with pytest.raises(GlassboxError, match=r"note\.txt: raw input changed while the stage ran"):
        execute(recipe(), tmp_path / "run", {**FUNCTIONS, "curate": meddle}, Log())


def test_a_dry_look_at_a_new_run_writes_nothing(tmp_path: Path, recipe: Callable[..., Recipe]) -> None:
    assert due_stages(tmp_path / "run", recipe())[1] == set(ALL)
    assert not (tmp_path / "run").exists()
    with pytest.raises(RequestError, match="'tokens' comes after 'documents'"):
        due_stages(tmp_path / "run", recipe(), Selection("tokens", "documents"))


def test_two_processes_cannot_share_a_run(tmp_path: Path, recipe: Callable[..., Recipe]) -> None:
    run = tmp_path / "run"
    with locked(run), pytest.raises(RequestError, match="another process"):
        execute(recipe(), run, FUNCTIONS, Log())


def test_records_tell_cost_and_lineage(tmp_path: Path, recipe: Callable[..., Recipe]) -> None:
    run = tmp_path / "run"
    execute(recipe(), run, FUNCTIONS, Log())
    record = next(r for r in read_records(run) if r.get("stage") == "tokens" and r["event"] == "finished")
    assert record["inputs"].keys() == {"documents", "tokenizer"}
    assert record["seconds"] >= 0
    assert {"cpu_seconds", "peak_memory_bytes", "energy_wh", "cost_usd", "code", "machine", "manifest"} <= record.keys()
    manifest = json.loads((run / "documents" / "manifest.json").read_text())
    assert [Path(file).name for file in manifest["raw"]] == ["note.txt"]
    with pytest.raises(RequestError, match=r"'other' is no run .*runs: run"):
        run_folder("other", tmp_path)


def test_a_run_that_is_worked_on_shows(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with locked(run):
        assert is_locked(run)
    assert not is_locked(run)


def test_what_a_stage_reports_stands_in_the_ledger(tmp_path: Path, recipe: Callable[..., Recipe]) -> None:
    def eventful(config: Stage, inputs: Inputs, workspace: Workspace) -> None:
        write_settings(config, inputs, workspace)
        workspace.event("spike", step=3, loss=float("nan"), done="skip")

    run = tmp_path / "run"
    execute(recipe(), run, FUNCTIONS | {"tokenizer": eventful}, Log())
    (record,) = [record for record in read_records(run) if record["event"] == "incident"]
    assert {"stage": "tokenizer", "what": "spike", "step": 3, "loss": "nan", "done": "skip"}.items() <= record.items()
    assert not [wrong for _, _, wrong in verify(run) if wrong]
