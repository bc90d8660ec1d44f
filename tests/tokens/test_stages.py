"""The stages tokenizer and tokenize: every document arrives once, byte for byte, on its side; errors are sentences."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from glassbox.errors import RequestError
from glassbox.ledger.workspace import Artefact, Inputs, Workspace
from glassbox.recipe.phases import Phase
from glassbox.recipe.text import TokenizerStage, TokenizeStage
from glassbox.tokens import tokenize_stage, tokenizer_stage
from glassbox.tokens.baselines import bigram_bits_per_byte
from glassbox.tokens.batches import PretrainData
from glassbox.tokens.documents import document_batches, share_of, text_bytes
from glassbox.tokens.shards import TokenFolder, dtype_for
from glassbox.tokens.tokenizer import decode, load_tokenizer
from tests.tokens.conftest import document, write_documents


def read_back(tokens_folder, tokenizer, source, split):
    """id -> text of all documents of a shard."""
    folder = TokenFolder(tokens_folder)
    shard = folder.shard(source, split)
    texts = {}
    for number, (start, end) in enumerate(zip(shard.index[:-1], shard.index[1:], strict=True)):
        assert shard.tokens[end - 1] == folder.eos_id
        row = shard.document(number)
        texts[row["id"]] = decode(tokenizer, shard.tokens[start : end - 1].tolist())
        assert row["bytes"] == len(texts[row["id"]].encode())
        assert shard.document_at(int(start)) == shard.document_at(int(end) - 1) == number
    assert len(texts) == len(shard.index) - 1
    return texts


@pytest.mark.parametrize("source", ["code", "prose"])
def test_every_document_arrives_unchanged_on_its_side(corpus, tokens_folder, tokenizer, source):
    for split in ("train", "held_out"):
        rows = [row for row in corpus if row["source"] == source and row["text"]]
        kept = [row for row in rows if (share_of(row["id"], "held out") < 0.1) == (split == "held_out")]
        expected = {row["id"]: row["text"] for row in kept}
        assert expected
        assert read_back(tokens_folder, tokenizer, source, split) == expected


def test_training_problems_enter_as_prose_and_held_out_ones_do_not(inputs, tokens_folder, tokenizer):
    folder = inputs.one("problems")
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    expected = {row["id"]: f"{row['question']}\n{row['solution']}" for row in rows}
    assert read_back(tokens_folder, tokenizer, "problems", "train") == expected
    assert read_back(tokens_folder, tokenizer, "problems", "held_out") == {}
    offset = TokenFolder(tokens_folder).shard("problems", "train").document(7)["offset"]
    assert json.loads((folder / "train.jsonl").read_bytes()[offset:].splitlines()[0])["id"] == rows[7]["id"]


def test_tokens_json_counts_what_is_there(tokens_folder, corpus):
    folder = TokenFolder(tokens_folder)
    for source, splits in folder.sources.items():
        for split, sizes in splits.items():
            shard = folder.shard(source, split)
            assert (sizes["documents"], sizes["tokens"]) == (len(shard.index) - 1, len(shard))
    written = sum(splits[s]["bytes"] for n, splits in folder.sources.items() if n != "problems" for s in splits)
    assert written == sum(len(row["text"].encode()) for row in corpus)
    assert sum(folder.info["empty_documents"].values()) == sum(not row["text"] for row in corpus)
    assert folder.vocab_size == 700
    assert folder.info["encoder"] == "kernels"
    assert (folder.tokenizer_folder / "chat.json").is_file()


def test_the_same_inputs_give_the_same_bytes(inputs, tokens_folder, tmp_path):
    for name in ("tokenizer", "tokens"):
        (tmp_path / name).mkdir()
    given = Inputs(inputs.artefacts[:2])
    tokenizer_stage.run(TokenizerStage(kind="tokenizer", vocab_size=700), given, Workspace(tmp_path / "tokenizer"))
    again = Inputs((*given.artefacts, Artefact("tokenizer", "tokenizer", tmp_path / "tokenizer")))
    tokenize_stage.run(TokenizeStage(kind="tokenize", held_out=0.1), again, Workspace(tmp_path / "tokens"))
    files = {path.relative_to(tokens_folder): path.read_bytes() for path in tokens_folder.rglob("*") if path.is_file()}
    assert len(files) == 3 * 2 * 3 + 3
    for path, content in files.items():
        assert (tmp_path / "tokens" / path).read_bytes() == content, path


def test_the_report_measures_each_source(inputs):
    folder = inputs.one("tokenizer")
    report = json.loads((folder / "report.json").read_text())
    assert set(report["bytes_per_token"]) == {"code", "prose", "problems"}
    assert all(1 < value < 6 for value in report["bytes_per_token"].values())
    assert report["vocab_size"] == report["vocab_size_asked"] == 700
    assert 0 <= report["unused"] < 300


def test_a_sample_is_chosen_by_id_and_stays_within_its_bounds(inputs, tmp_path):
    config = TokenizerStage(kind="tokenizer", vocab_size=300, sample_bytes=400_000)
    tokenizer_stage.run(config, inputs, Workspace(tmp_path))
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["sample_share"] == pytest.approx(400_000 / text_bytes(inputs))
    assert 200_000 < sum(report["measured_bytes"].values()) < 600_000


def test_ids_fit_their_type():
    assert dtype_for(65_536) == "uint16"
    assert dtype_for(65_537) == "uint32"
    assert np.iinfo(dtype_for(65_536)).max == 65_535


def run_tokenize(inputs, documents, folder):
    folder.mkdir()
    artefacts = (documents, Artefact("tokenizer", "tokenizer", inputs.one("tokenizer")))
    tokenize_stage.run(TokenizeStage(kind="tokenize"), Inputs(artefacts), Workspace(folder))


def test_empty_and_missing_texts_are_counted(inputs, tmp_path):
    rows = [document("", "web", "a"), {**document("", "web", "b"), "text": None}, document("hello", "web", "c")]
    run_tokenize(inputs, write_documents(tmp_path / "pages", rows), tmp_path / "tokens")
    info = json.loads((tmp_path / "tokens" / "tokens.json").read_text())
    assert info["empty_documents"] == {"web": 2}
    assert info["sources"]["web"]["train"]["documents"] + info["sources"]["web"]["held_out"]["documents"] == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no document came out of the earlier stages"),
        ([document("x", "../etc", "a")], "source name '../etc'"),
        ([document("x", "problems", "a")], "the source name 'problems' is kept"),
    ],
)
def test_bad_documents_are_clear_errors(inputs, tmp_path, rows, message):
    with pytest.raises(RequestError, match=message):
        run_tokenize(inputs, write_documents(tmp_path / "pages", rows), tmp_path / "tokens")


def test_a_broken_parquet_file_is_a_clear_error(inputs, tmp_path):
    (tmp_path / "pages" / "documents").mkdir(parents=True)
    (tmp_path / "pages" / "documents" / "0.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(RequestError, match=r"0\.parquet: cannot be read as Parquet"):
        run_tokenize(inputs, Artefact("pages", "documents", tmp_path / "pages"), tmp_path / "tokens")


def test_a_missing_column_is_a_clear_error(inputs, tmp_path):
    (tmp_path / "pages" / "documents").mkdir(parents=True)
    pq.write_table(pa.table({"id": ["a"], "source": ["web"]}), tmp_path / "pages" / "documents" / "0.parquet")
    with pytest.raises(RequestError, match="need the column 'text'"):
        run_tokenize(inputs, Artefact("pages", "documents", tmp_path / "pages"), tmp_path / "tokens")


def test_a_cut_off_shard_is_a_clear_error(inputs, tmp_path):
    run_tokenize(inputs, write_documents(tmp_path / "pages", [document("hello", "web", "a")]), tmp_path / "tokens")
    folder = TokenFolder(tmp_path / "tokens")
    split = "train" if folder.sources["web"]["train"]["tokens"] else "held_out"
    path = tmp_path / "tokens" / "web" / split / "tokens.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(RequestError, match=r"tokens\.bin: holds"):
        folder.shard("web", split)


def test_a_failure_leaves_no_shard(inputs, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("glassbox.tokens.shards.ShardWriter.add", full)
    with pytest.raises(OSError, match="No space left"):
        run_tokenize(inputs, write_documents(tmp_path / "pages", [document("x", "web", "a")]), tmp_path / "tokens")
    assert not [path for path in (tmp_path / "tokens").rglob("*") if path.is_file()]


def texts_in_order(folder, tokenizer, source, split):
    """The texts of a shard as they stand in it."""
    shard = TokenFolder(folder).shard(source, split)
    bounds = zip(shard.index[:-1], shard.index[1:], strict=True)
    return [decode(tokenizer, shard.tokens[start : end - 1].tolist()) for start, end in bounds]


def write_copies(folder, rows, type_=None):
    """Two files of documents with the column `copies`."""
    artefact = write_documents(folder, rows)
    for path, part in zip(
        sorted(folder.glob("documents/*")), (rows[: len(rows) // 2], rows[len(rows) // 2 :]), strict=True
    ):
        column = pa.array([row["copies"] for row in part], type_ or pa.int32())
        pq.write_table(pq.read_table(path).append_column("copies", column), path)
    return artefact


def test_copies_come_round_after_round(inputs, tokenizer, tmp_path):
    copies = [1, 3, 2, None, 1, 2]
    rows = [{**document(f"text {n} ", "web", f"file {n}"), "copies": count} for n, count in enumerate(copies)]
    artefact = write_copies(tmp_path / "pages", rows)
    config = TokenizeStage(kind="tokenize", held_out=0.0)
    (tmp_path / "tokens").mkdir()
    given = Inputs((artefact, Artefact("tokenizer", "tokenizer", inputs.one("tokenizer"))))
    tokenize_stage.run(config, given, Workspace(tmp_path / "tokens"))
    order = [int(text.split()[1]) for text in texts_in_order(tmp_path / "tokens", tokenizer, "web", "train")]
    assert order == [0, 1, 2, 3, 4, 5, 1, 2, 5, 1]
    assert text_bytes(given) == 10 * len("text 0 ")
    assert [document.copy for batch in document_batches(given) for document in batch] == [0] * 6 + [1] * 3 + [2]


def test_held_out_documents_are_used_once(inputs, tokenizer, tmp_path):
    rows = [{**document(f"text {n} ", "web", f"file {n}"), "copies": 3} for n in range(40)]
    artefact = write_copies(tmp_path / "pages", rows)
    (tmp_path / "tokens").mkdir()
    given = Inputs((artefact, Artefact("tokenizer", "tokenizer", inputs.one("tokenizer"))))
    tokenize_stage.run(TokenizeStage(kind="tokenize", held_out=0.5), given, Workspace(tmp_path / "tokens"))
    held_out = {row["text"] for row in rows if share_of(row["id"], "held out") < 0.5}
    assert 10 < len(held_out) < 30
    found = texts_in_order(tmp_path / "tokens", tokenizer, "web", "held_out")
    assert sorted(found) == sorted(held_out)
    train = texts_in_order(tmp_path / "tokens", tokenizer, "web", "train")
    assert sorted(train) == sorted(row["text"] for row in rows for _ in range(3) if row["text"] not in held_out)


@pytest.mark.parametrize(
    ("copies", "type_", "message"),
    [(0, pa.int32(), "'copies' holds 0"), (1.5, pa.float32(), "whole numbers, not float")],
)
def test_bad_copies_are_clear_errors(inputs, tmp_path, copies, type_, message):
    rows = [{**document(f"text {n}", "web", f"file {n}"), "copies": copies} for n in range(4)]
    with pytest.raises(RequestError, match=message):
        run_tokenize(inputs, write_copies(tmp_path / "pages", rows, type_), tmp_path / "tokens")


def test_text_that_is_no_utf8_is_a_clear_error(inputs, tmp_path):
    rows = {"id": pa.array(["a"]), "source": pa.array(["web"]), "text": pa.array([b"ab\xff"]).view(pa.string())}
    (tmp_path / "pages" / "documents").mkdir(parents=True)
    pq.write_table(pa.table(rows), tmp_path / "pages" / "documents" / "0.parquet")
    with pytest.raises(RequestError, match=r"0\.parquet: a text is not valid UTF-8"):
        run_tokenize(inputs, Artefact("pages", "documents", tmp_path / "pages"), tmp_path / "tokens")


def test_a_tokenizer_that_the_kernels_do_not_know_is_named(inputs, tmp_path, caplog):
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    table = json.loads((inputs.one("tokenizer") / "tokenizer.json").read_text())
    table["normalizer"] = {"type": "NFKC"}
    (folder / "tokenizer.json").write_text(json.dumps(table))
    (folder / "chat.json").write_text("{}")
    artefacts = (
        write_documents(tmp_path / "pages", [document("\ufb01ne", "web", "a")]),
        Artefact("tokenizer", "tokenizer", folder),
    )
    (tmp_path / "tokens").mkdir()
    tokenize_stage.run(TokenizeStage(kind="tokenize", held_out=0.0), Inputs(artefacts), Workspace(tmp_path / "tokens"))
    info = json.loads((tmp_path / "tokens" / "tokens.json").read_text())
    assert info["encoder"] == "tokenizers library (normalizer NFKC)"
    assert "normalizer NFKC" in caplog.text
    tokenizer = load_tokenizer(folder)
    assert texts_in_order(tmp_path / "tokens", tokenizer, "web", "train") == ["fine"]


def divided(tmp_path, inputs, categories=("prose",), held_out=0.1):
    """A corpus whose prose has two categories, and some of it none, tokenized."""
    rows = [document(f"{'word ' * (5 + n % 7)}{n}", "prose", "p.txt", n) for n in range(120)]
    for n, row in enumerate(rows):
        row["category"] = ("news", "science", None)[n % 3 if n % 2 else 0]
    rows += [document(f"x = {n}\n" * 30, "code", "c.py", n) | {"category": "news"} for n in range(20)]
    (tmp_path / "pages" / "documents").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pages" / "documents" / "0.parquet")
    (tmp_path / "tokens").mkdir()
    given = Inputs((Artefact("pages", "documents", tmp_path / "pages"), inputs.artefacts[2]))
    config = TokenizeStage(kind="tokenize", held_out=held_out, categories=categories)
    tokenize_stage.run(config, given, Workspace(tmp_path / "tokens"))
    return rows, tmp_path / "tokens"


def test_a_divided_source_has_a_shard_for_each_category_and_one_of_held_out_text(inputs, tokenizer, tmp_path):
    rows, folder = divided(tmp_path, inputs)
    assert set(TokenFolder(folder).sources) == {"prose", "prose/news", "prose/science", "prose/uncategorised", "code"}
    held = {row["id"] for row in rows if share_of(row["id"], "held out") < 0.1}
    prose = [row for row in rows if row["source"] == "prose"]
    for name in ("news", "science", None):
        expected = {row["id"]: row["text"] for row in prose if row["category"] == name and row["id"] not in held}
        assert read_back(folder, tokenizer, f"prose/{name or 'uncategorised'}", "train") == expected
    assert read_back(folder, tokenizer, "prose", "train") == {}
    expected = {row["id"]: row["text"] for row in prose if row["id"] in held}
    assert read_back(folder, tokenizer, "prose", "held_out") == expected
    assert len(read_back(folder, tokenizer, "code", "train")) > 10
    assert 0 < bigram_bits_per_byte(folder, "prose", 16) < 10


def test_a_category_that_cannot_be_a_folder_is_a_clear_error(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenize_stage, "NO_CATEGORY", "no such folder")
    with pytest.raises(RequestError, match="category name 'no such folder' must be a folder's"):
        divided(tmp_path, inputs)


def test_a_mixture_reads_categories_by_size_and_factor(inputs, tmp_path):
    _, folder = divided(tmp_path, inputs, held_out=0.0)
    sizes = TokenFolder(folder).train_sizes
    phase = {"name": "p", "tokens": 8000, "mixture": {"prose": 0.8, "code": 0.2}, "context": 16, "rows": 4}
    plain = PretrainData(folder, [Phase(**phase)], 1).epochs()
    names = ("prose/news", "prose/science", "prose/uncategorised")
    whole = sum(sizes[name] for name in names)
    for name in names:
        assert plain[name] == pytest.approx(0.8 * 8000 / whole, abs=16 / sizes[name])
    assert plain["code"] == pytest.approx(0.2 * 8000 / sizes["code"], abs=16 / sizes["code"])
    more = PretrainData(folder, [Phase(**phase, categories={"prose/science": 3.0})], 1).epochs()
    assert more["prose/science"] / more["prose/news"] == pytest.approx(3, rel=0.05)
    assert more["code"] == plain["code"]
    none = PretrainData(folder, [Phase(**phase, categories={"prose/science": 0.0})], 1)
    assert {source for step in range(none.steps) for source, _ in none.windows(step)} == {*names, "code"} - {names[1]}


def test_wrong_names_of_categories_are_clear_errors(inputs, tmp_path):
    _, folder = divided(tmp_path, inputs)
    for mixture, categories, message in (
        ({"prose/sport": 1.0}, {}, "no token source 'prose/sport'; there are: .*prose/news"),
        ({"prose": 1.0}, {"prose/sport": 2.0}, "no token source 'prose/sport'"),
        ({"prose": 1.0}, dict.fromkeys(("prose/news", "prose/science", "prose/uncategorised"), 0.0), "leave no text"),
    ):
        phase = Phase(name="p", steps=1, mixture=mixture, categories=categories, context=16, rows=1)
        with pytest.raises(RequestError, match=message):
            PretrainData(folder, [phase], 1)
