"""A recipe's errors name file, line, key and the nearest valid key."""

from pathlib import Path

import pytest

from glassbox.errors import RequestError
from glassbox.recipe.curation import CurateStage
from glassbox.recipe.loading import load_recipe
from glassbox.recipe.schema import KINDS, graph_error, json_schema

GOOD = """\
name: tiny
seed: 3
stages:
  problems: {kind: problems, train: 100, held_out: 20}
  pages: {kind: crawl, site: pydoc}
  documents:
    kind: curate
    from: [pages, problems]
    sources: [{name: web, format: warc, stage: pages}]
  tokenizer: {kind: tokenizer, from: documents, vocab_size: 512}
  tokens: {kind: tokenize, from: [documents, tokenizer, problems]}
  base:
    kind: pretrain
    from: tokens
    model: {dim: 32, layers: 2, hidden: 64, attention: {heads: 4, kv_heads: 2}}
    phases:
      - {name: main, steps: 10, mixture: {web: 1.0}, context: 64, rows: 4}
    optimizer: {lr: 1e-3}
"""


def recipe(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def test_a_good_recipe_keeps_its_values(tmp_path: Path) -> None:
    loaded = load_recipe(recipe(tmp_path, GOOD))
    assert loaded.name == "tiny"
    assert loaded.stages["base"].optimizer.lr == 1e-3  # YAML 1.1 reads 1e-3 as text; the settings read the number
    assert loaded.order().index("base") > loaded.order().index("tokens") > loaded.order().index("documents")


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("seed: 3", "sead: 3", ["recipe.yaml:2", "unknown key 'sead'", "did you mean 'seed'"]),
        ("dim: 32", "dimm: 32", ["recipe.yaml:15", "'stages.base.model.dimm'", "did you mean 'dim'"]),
        ("heads: 4, kv", "haeds: 4, kv", ["recipe.yaml:15", "haeds", "did you mean 'heads'"]),
        ("context: 64", "contxt: 64", ["recipe.yaml:17", "stages.base.phases.0.contxt", "did you mean 'context'"]),
        ("steps: 10", "steps: many", ["recipe.yaml:17", "stages.base.phases.0.steps", "'many'"]),
        ("layers: 2, ", "", ["recipe.yaml:15", "stages.base.model.layers", "missing"]),
        ("kind: pretrain", "kind: pretrane", ["recipe.yaml:13", "pretrane", "did you mean 'pretrain'"]),
        ("from: tokens", "from: token", ["recipe.yaml:14", "'token', which is no stage", "did you mean 'tokens'"]),
        ("from: tokens", "from: pages", ["recipe.yaml:14", "gives pages", "takes tokens"]),
        ("from: [documents, tokenizer, problems]", "from: [documents]", ["recipe.yaml:11", "1 tokenizer"]),
        ("kv_heads: 2", "kv_heads: 3", ["recipe.yaml:15", "kv_heads 3 must divide heads 4"]),
        ("hidden: 64, ", "", ["recipe.yaml:15", "either `hidden`", "or `experts`"]),
        ("name: tiny", "name: ../up", ["recipe.yaml:1", "no folder name"]),
        ("seed: 3", "seed: 3\nseed: 4", ["recipe.yaml:3", "'seed' stands here twice"]),
        ("seed: 3", "seed: 3\n? [a, b]\n: 1", ["recipe.yaml:3", "a key must be a plain word"]),
        ("kind: pretrain", "kind: [pretrain]", ["recipe.yaml:13", "does not exist"]),
        ("lr: 1e-3", "lr: .inf", ["recipe.yaml:18", "finite"]),
        ("mixture: {web: 1.0}", "mixture: {webb: 1.0}", ["recipe.yaml:14", "'webb'", "hold web, problems"]),
        ("from: tokens", "from: [tokens, tokens]", ["recipe.yaml:14", "twice"]),
        (
            "from: tokens",
            "from: tokens\n    tasks: [{name: sums, form: problems}]",
            ["recipe.yaml:14", "task 'sums'", "add a problems stage to `from`"],
        ),
        ("seed: 3", "seed: [3", ["recipe.yaml:3", "not valid YAML"]),
        ("seed: 3", "seed: !!python/object:os.system {}", ["recipe.yaml", "not valid YAML"]),
    ],
)
def test_an_error_says_where_what_and_what_is_near(tmp_path: Path, old: str, new: str, parts: list[str]) -> None:
    with pytest.raises(RequestError) as caught:
        load_recipe(recipe(tmp_path, GOOD.replace(old, new, 1)))
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_what_cannot_decode_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    experts = "{count: 4, top_k: 2, hidden: 32, choice: expert, balance_loss: 0}"
    text = GOOD.replace("hidden: 64, ", f"experts: {experts}, ", 1)
    assert load_recipe(recipe(tmp_path, text)).stages["base"].model.experts.choice == "expert"
    text += "  scores: {kind: evaluate, from: [base, problems]}\n"
    with pytest.raises(RequestError, match=r"decodes with the model of 'base', whose experts choose their tokens"):
        load_recipe(recipe(tmp_path, text))


def test_a_circle_of_stages_is_named(tmp_path: Path) -> None:
    text = GOOD.replace("{kind: crawl, site: pydoc}", "{kind: crawl, site: pydoc, from: base}")
    with pytest.raises(RequestError, match="base -> "):
        load_recipe(recipe(tmp_path, text))


def test_overrides_reach_every_depth(tmp_path: Path) -> None:
    path = recipe(tmp_path, GOOD)
    loaded = load_recipe(path, ["base.optimizer.lr=0.5", "stages.base.phases.0.steps=7", "seed=9"])
    assert (loaded.stages["base"].optimizer.lr, loaded.stages["base"].phases[0].steps, loaded.seed) == (0.5, 7, 9)


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("base.optimizer.lrr=1", "did you mean 'lr'"),
        ("base.phases.9.steps=1", "no index of a list of 1"),
        ("seed", "write key.path=value"),
        ("seed.x=1", "holds a value"),
        ("base.optimizer.lr=[", "not a YAML value"),
        ("seed=2020-99-99", "not a YAML value"),
        ("base.phases.².steps=1", "no index"),
    ],
)
def test_a_bad_override_is_named(tmp_path: Path, override: str, part: str) -> None:
    with pytest.raises(RequestError, match="override") as caught:
        load_recipe(recipe(tmp_path, GOOD), [override])
    assert part in str(caught.value)


def test_hostile_files_are_refused(tmp_path: Path) -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    for level in range(1, 9):
        before = chr(ord("a") + level - 1)
        bomb += f"{chr(ord('a') + level)}: &{chr(ord('a') + level)} [{', '.join([f'*{before}'] * 10)}]\n"
    with pytest.raises(RequestError, match="unfold"):
        load_recipe(recipe(tmp_path, bomb))
    with pytest.raises(RequestError, match="contains itself"):
        load_recipe(recipe(tmp_path, "name: x\nstages: &a {x: *a}\n"))
    with pytest.raises(RequestError, match="nested too deeply"):
        load_recipe(recipe(tmp_path, "name: " + "[" * 3000 + "]" * 3000))
    with pytest.raises(RequestError, match="too large"):
        load_recipe(recipe(tmp_path, "#" * 2_000_000))
    with pytest.raises(RequestError, match="no such recipe"):
        load_recipe(tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(RequestError, match="not UTF-8"):
        load_recipe(tmp_path / "binary.yaml")
    with pytest.raises(RequestError, match="a recipe is a mapping"):
        load_recipe(recipe(tmp_path, "- 1\n"))


def test_the_schema_knows_every_kind_and_describes_every_field() -> None:
    schema = json_schema()
    choices = {one["$ref"].rsplit("/", 1)[1] for one in schema["properties"]["stages"]["additionalProperties"]["oneOf"]}
    assert choices == {settings.__name__ for settings in KINDS.values()}
    for name, definition in schema["$defs"].items():
        for field, about in definition.get("properties", {}).items():
            assert about.get("description"), f"{name}.{field} has no description"
        assert len(definition.get("properties", {})) <= 14, f"{name} has grown far past a dozen fields"


def test_a_phase_that_tangles_needs_reserved_tokens(tmp_path: Path) -> None:
    path, tangle = recipe(tmp_path, GOOD), "base.phases.0.tangle={parts: [2, 4]}"
    with pytest.raises(RequestError, match=r"tangles with 11 reserved tokens, but 'tokenizer' has 0; set its reserved"):
        load_recipe(path, [tangle])
    loaded = load_recipe(path, [tangle, "tokenizer.reserved=11"])
    assert loaded.stages["base"].phases[0].tangle.tokens == 11
    with pytest.raises(RequestError, match="not all of them 1"):
        load_recipe(path, ["base.phases.0.tangle={parts: [1]}"])


def test_needles_need_text_and_a_network_that_decodes(tmp_path: Path) -> None:
    scores = "  scores: {kind: evaluate, from: [base, problems], needle: {lengths: [64]}}\n"
    with pytest.raises(RequestError, match="hides needles in held-out text, but takes no tokens"):
        load_recipe(recipe(tmp_path, GOOD + scores))
    path = recipe(tmp_path, GOOD + scores.replace("problems", "tokens"))
    assert load_recipe(path).stages["scores"].needle.lengths == (64,)
    experts = "base.model.experts={count: 4, top_k: 2, hidden: 16, choice: expert, balance_loss: 0}"
    with pytest.raises(RequestError, match="later ones included"):
        load_recipe(path, [experts, "base.model.hidden=null"])


@pytest.mark.parametrize(
    ("source", "sampling", "sentence"),
    [
        ({"format": "documents"}, None, None),
        ({"name": "b", "format": "documents", "subset": "a"}, {"most": 1.0}, None),
        ({"name": "b", "format": "documents"}, None, "of source 'b' of stage 'one', which has a; set its subset"),
        ({"format": "documents", "subset": "c"}, None, "of source 'c'"),
        ({"format": "warc"}, None, "reads pages of 'one', which gives documents"),
        ({"format": "documents"}, {"most": 2.0}, "more than once"),
    ],
)
def test_a_source_reads_what_its_stage_holds(source: dict, sampling: dict | None, sentence: str | None) -> None:
    one = CurateStage(kind="curate", sources=[{"name": "a", "format": "text", "path": "x"}], sampling=sampling)
    two = CurateStage(kind="curate", sources=[{"name": "a", "stage": "one", **source}], **{"from": "one"})
    wrong = graph_error({"one": one, "two": two})
    assert (wrong is None) if sentence is None else (wrong is not None and wrong[0] == "two" and sentence in wrong[1])
