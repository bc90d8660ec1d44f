"""Needles in haystacks: rows of exact lengths, cells that add up, a scripted reader that finds what it can reach."""

import json
import logging
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from glassbox.errors import RequestError
from glassbox.evaluate.needle import Cell, Haystack, cells, find, found_shares, record, row_of
from glassbox.evaluate.stage import run
from glassbox.ledger.workspace import Artefact, Inputs, Workspace
from glassbox.model.families import Sizes
from glassbox.model.folder import LoadedModel, save_model
from glassbox.model.tensors import InMemory
from glassbox.model.transformer import Output, Transformer
from glassbox.recipe.needle import Needle
from glassbox.recipe.network import Attention, Network
from glassbox.recipe.training import EvaluateStage
from glassbox.tokens.chat import chat_format
from glassbox.tokens.documents import Document
from glassbox.tokens.shards import shard_writer
from glassbox.tokens.tokenizer import END_OF_TEXT, decode, encode, special_id, train_tokenizer
from tests.tiny import SENTENCES

NEEDLE = Needle(lengths=(96, 160), depths=(0.0, 0.5, 1.0), samples=2, digits=3, choices=5)


class Copier(Transformer):
    """Goes on as after the last place before that ended alike, looking back over `reach` tokens. Its cache holds the
    ids themselves, so the engine treats it as any network."""

    def __init__(self, vocab_size: int, reach: int):
        super().__init__(Network(dim=4, layers=1, hidden=2, attention=Attention(heads=1, kv_heads=1)), vocab_size)
        self.embedding.weight.data.zero_()
        self.reach = reach

    @property
    def head_VD(self) -> torch.Tensor:
        return torch.eye(self.vocab_size)

    def forward(self, ids_BT, positions_BT=None, documents_BT=None, cache=None, drafts=False) -> Output:
        entry = cache.enter(positions_BT, ids_BT.shape[1])
        stored = ids_BT[:, :, None, None].float().expand(-1, -1, 1, 4)
        seen_BS = cache.extend(0, stored, stored, entry)[0][:, :, 0, 0].long()
        hidden_BTV = torch.zeros(*ids_BT.shape, self.vocab_size)
        for row, column in torch.ones_like(ids_BT).nonzero().tolist():
            stop = column if positions_BT is None else int(positions_BT[row, column])
            before = seen_BS[row, max(0, stop + 1 - self.reach) : stop + 1].tolist()
            hidden_BTV[row, column, after(before)] = 9.0
        return Output(hidden_BTV, hidden_BTV, torch.zeros(()), None)


def after(ids: list[int]) -> int:
    """The token after the longest earlier match of the end of `ids`."""
    best, token = 0, 0
    for place in range(1, len(ids)):
        size = 0
        while size < place and ids[place - 1 - size] == ids[-1 - size]:
            size += 1
        if size > best:
            best, token = size, ids[place]
    return token


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    words = [
        "What is the magic number? The magic number is 1",
        *(text.format(a="file", b="page") for text in SENTENCES),
    ]
    return train_tokenizer(words * 3, 420)


@pytest.fixture(scope="module")
def tokens_folder(tokenizer, tmp_path_factory) -> Path:
    """Held-out documents of one source, none of another."""
    folder, end = tmp_path_factory.mktemp("tokens"), special_id(tokenizer, END_OF_TEXT)
    texts = [text.format(a=noun, b="clock") for noun in ("table", "record") for text in SENTENCES]
    for source, split, count in (("a", "held_out", 10), ("a", "train", 5), ("b", "held_out", 0), ("b", "train", 0)):
        with shard_writer(folder / source / split, "uint16", end) as writer:
            documents = [Document(str(n), texts[n], source, "x", n, "") for n in range(count)]
            writer.add(documents, [torch.tensor(encode(tokenizer, document.text)).numpy() for document in documents])
    sizes = {source: {"held_out": {"tokens": int(source == "a")}} for source in ("a", "b")}
    info = {"vocab_size": tokenizer.get_vocab_size(), "dtype": "uint16", "eos_id": end, "sources": sizes}
    (folder / "tokens.json").write_text(json.dumps(info))
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "tokenizer.json").write_text(tokenizer.to_str())
    return folder


def loaded(tokenizer: Tokenizer, reach: int = 1000, context: int = 200) -> LoadedModel:
    model = Copier(tokenizer.get_vocab_size(), reach)
    return LoadedModel(model, model.network, model.vocab_size, context, tokenizer)


@pytest.mark.parametrize("depth", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("length", [70, 71, 300])
def test_a_row_is_as_long_as_asked_and_its_needle_as_deep(tokens_folder, tokenizer, length, depth) -> None:
    reader = loaded(tokenizer)
    row = row_of(NEEDLE, reader, Haystack(tokens_folder, reader), length, depth, seed=4)
    texts = [decode(tokenizer, answer) for answer in row.answers]
    assert len({len(answer) for answer in row.answers}) == 1
    assert len(row.prompt) + len(row.answers[0]) == length
    assert len(set(texts)) == 5
    assert all(text == f" {int(text):03d}" for text in texts)
    needle = encode(tokenizer, f"\nThe magic number is{texts[0]}.\n")
    question = encode(tokenizer, "\n\nWhat is the magic number? The magic number is")
    (place,) = [i for i in range(length) if row.prompt[i : i + len(needle)] == needle]
    room = length - 1 - len(needle) - len(question) - len(row.answers[0])
    assert place == 1 + round(depth * room)
    assert row.prompt[-len(question) :] == question
    assert row.prompt[0] == special_id(tokenizer, END_OF_TEXT)


def test_question_and_answer_are_cut_where_a_tokenizer_joins_them(tokens_folder) -> None:
    joining = Tokenizer(models.BPE())
    joining.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    joining.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    joining.train_from_iterator([f" is {value}" for value in range(100, 1000)], trainer)
    joining.add_special_tokens([END_OF_TEXT])
    reader = loaded(joining)
    question = "\n\nWhat is the magic number? The magic number is"
    row = row_of(NEEDLE, reader, Haystack(tokens_folder, reader), 120, 0.5, seed=4)
    assert decode(joining, row.prompt).endswith(question.removesuffix(" is"))
    for answer in row.answers:
        text = question + decode(joining, answer).removeprefix(" is")
        assert encode(joining, text)[: len(encode(joining, question))] != encode(joining, question)  # joined
        assert [*row.prompt, *answer][-len(encode(joining, text)) :] == encode(joining, text)
    assert len(row.prompt) + max(map(len, row.answers)) == 120


def test_texts_begin_with_documents_and_go_round(tokens_folder, tokenizer) -> None:
    haystack = Haystack(tokens_folder, loaded(tokenizer))
    assert len(haystack) == 10
    stream = haystack.tokens(8)
    text = decode(tokenizer, [next(stream) for _ in range(400)])
    starts = [
        text.index(SENTENCES[n].format(a=noun, b="clock")) for n, noun in ((3, "record"), (4, "record"), (0, "table"))
    ]
    assert starts[0] == 0
    assert sorted(starts) == starts
    assert END_OF_TEXT not in text


def test_cells_count_what_the_judge_says_and_long_rows_are_left_out(tokens_folder, tokenizer, caplog) -> None:
    reader = loaded(tokenizer, context=100)
    asked = []

    def judge(rows):
        asked.extend(rows)
        return [(len(asked) == 4, len(asked) >= 4)] * len(rows)

    with caplog.at_level(logging.WARNING):
        found = list(cells(NEEDLE, reader, Haystack(tokens_folder, reader), 1, judge))
    assert found == [Cell(96, 0.0, 2, 0, 0), Cell(96, 0.5, 2, 2, 2), Cell(96, 1.0, 2, 0, 2)]
    assert "no needles at 160 tokens: the model's context is 100" in caplog.text
    assert len({tuple(row.prompt) for row in asked}) == 6
    shares = found_shares(found, 0.95)
    assert shares["needle_exact"][0] == pytest.approx(2 / 6)
    assert shares["needle_choice"][0] == pytest.approx(4 / 6)
    assert shares["needle_choice"][3] == 6
    assert found_shares([], 0.95) == {}
    assert record(NEEDLE, {"base": found})["models"]["base"][1] == {
        "length": 96, "depth": 0.5, "n": 2, "exact": 2, "choice": 2,
    }  # fmt: skip


def test_a_reader_finds_the_needles_within_its_reach(tokens_folder, tokenizer) -> None:
    everywhere = list(find(NEEDLE, loaded(tokenizer), tokens_folder, seed=1))
    assert [(cell.length, cell.depth) for cell in everywhere] == [(n, d) for n in (96, 160) for d in (0.0, 0.5, 1.0)]
    assert all(cell.exact == cell.choice == cell.n == 2 for cell in everywhere)
    near = {
        (cell.length, cell.depth): cell for cell in find(NEEDLE, loaded(tokenizer, reach=70), tokens_folder, seed=1)
    }
    assert near[160, 1.0].exact == near[160, 1.0].choice == 2
    assert near[160, 0.0].exact == near[160, 0.0].choice == 0


def test_a_row_without_room_for_text_is_refused(tokens_folder, tokenizer) -> None:
    with pytest.raises(RequestError, match=r"needle.lengths: 20 tokens have no room"):
        list(find(NEEDLE.model_copy(update={"lengths": (20,)}), loaded(tokenizer), tokens_folder, seed=1))


def test_the_stage_leaves_the_cells_and_the_scores(tokens_folder, tokenizer, tmp_path) -> None:
    torch.set_num_threads(1)
    network = Network(dim=16, layers=1, hidden=16, attention=Attention(heads=2, kv_heads=2), init_std=0.2)
    model = Transformer(network, tokenizer.get_vocab_size())
    model.init_weights(1)
    source, folder = tmp_path / "tokenizer", tmp_path / "base" / "model"
    source.mkdir()
    (source / "tokenizer.json").write_text(tokenizer.to_str())
    (source / "chat.json").write_text(json.dumps(chat_format(tokenizer)))
    save_model(folder, InMemory(model.state_dict()), Sizes(network, tokenizer.get_vocab_size(), 128), source)
    (tmp_path / "scores").mkdir()
    inputs = Inputs((Artefact("base", "model", tmp_path / "base"), Artefact("tokens", "tokens", tokens_folder)))
    run(EvaluateStage(kind="evaluate", needle=NEEDLE), inputs, Workspace(tmp_path / "scores"))
    found = json.loads((tmp_path / "scores" / "needle.json").read_text())
    assert [cell["length"] for cell in found["models"]["base"]] == [96, 96, 96]
    assert found["chance"] == 0.2
    scores = json.loads((tmp_path / "scores" / "scores.json").read_text())
    named = {row["metric"]: row for row in scores["rows"]}
    assert named["needle_choice"]["n"] == 6
    assert named["needle_choice"]["low"] <= named["needle_choice"]["value"] <= named["needle_choice"]["high"]
    with pytest.raises(RequestError, match="needs tokens in its `from`"):
        run(
            EvaluateStage(kind="evaluate", needle=NEEDLE),
            Inputs((Artefact("p", "problems", tmp_path),)),
            Workspace(tmp_path),
        )
