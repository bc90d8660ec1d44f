"""Embeddings, and copies in meaning against all cosines."""

import json
from pathlib import Path

import numpy as np
import pytest

from glassbox.curate.repeats.semantic import WIDTH, embed, semantic_copies, width
from glassbox.errors import RequestError
from glassbox.recipe.duplicates import SemanticDuplicates
from tests.curate.alike import MEMORY, column, jaccard, paragraphs, shingles, shuffled

TEXTS = ["the cat sat on the mat", "", "!!!", "读书 and reading", "the cat sat on the mat", "mat the on sat cat the"]


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def planted(seed: int, count: int = 600) -> np.ndarray:
    """Directions and noisy copies of them, from equal to unlike."""
    draw = np.random.default_rng(seed)
    base = unit(draw.normal(size=(count // 4, 64)))
    noise = draw.uniform(0, 0.6, count)[:, None]
    return unit(base[np.arange(count) % len(base)] + noise * unit(draw.normal(size=(count, 64))))


def one_by_one(table: np.ndarray, order: np.ndarray, threshold: float) -> set[int]:
    """Documents that stay, if each is held against all that stay before it."""
    stays: list[int] = []
    for document in order.tolist():
        if not stays or (table[stays] @ table[document]).max() < threshold:
            stays.append(document)
    return set(stays)


def test_one_cluster_is_a_plain_greedy_search(tmp_path: Path) -> None:
    table = planted(0, 3000)
    order = np.random.default_rng(1).permutation(3000)[:2800]
    kept, similarity = semantic_copies(table, order, SemanticDuplicates(clusters=1), 0, tmp_path, MEMORY)
    stays = {d for d in order.tolist() if kept[d] == d}
    assert stays == one_by_one(table, order, 0.95)
    gone = np.flatnonzero(kept != np.arange(3000))
    assert 300 < len(gone) < 2000
    assert (kept[kept[gone]] == kept[gone]).all()
    exact = (table[gone] * table[kept[gone]]).sum(1)
    assert np.allclose(similarity[gone], exact, atol=1e-5)
    assert (similarity[gone] >= 0.95 - 1e-5).all()
    assert not similarity[np.setdiff1d(np.arange(3000), gone)].any()


def test_clusters_lose_few_and_nothing_depends_on_the_numbering(tmp_path: Path) -> None:
    table = planted(2, 4000)
    order = np.random.default_rng(3).permutation(4000)
    settings = SemanticDuplicates()
    kept, similarity = semantic_copies(table, order, settings, 5, tmp_path, MEMORY)
    gone = int((kept != np.arange(4000)).sum())
    assert gone >= 0.9 * (4000 - len(one_by_one(table, order, 0.95)))
    old, new = shuffled(4000)
    again, same = semantic_copies(table[old], new[order], settings, 5, tmp_path, MEMORY)
    assert np.array_equal(old[again[new]], kept)
    assert np.array_equal(same[new], similarity)


def test_equal_documents_go_at_any_threshold_and_empty_ones_never(tmp_path: Path) -> None:
    table = embed(column(TEXTS), SemanticDuplicates())
    kept, similarity = semantic_copies(
        table, np.arange(len(TEXTS)), SemanticDuplicates(threshold=1, clusters=1), 0, tmp_path, MEMORY
    )
    assert kept.tolist() == [0, 1, 2, 3, 0, 5]
    assert similarity[4] == pytest.approx(1)
    assert semantic_copies(table, np.array([], int), SemanticDuplicates(), 0, tmp_path, MEMORY)[0].tolist() == list(
        range(6)
    )


def test_word_vectors_have_length_one_and_do_not_depend_on_the_batch() -> None:
    settings = SemanticDuplicates()
    whole = embed(column(TEXTS), settings)
    assert whole.shape == (len(TEXTS), WIDTH) == (len(TEXTS), width(settings))
    assert np.allclose(np.linalg.norm(whole, axis=1), [1, 0, 0, 1, 1, 1], atol=1e-6)
    for k in range(len(TEXTS)):
        assert np.array_equal(embed(column(TEXTS)[k : k + 1], settings)[0], whole[k])


def test_word_vectors_tell_editions_of_a_paragraph_from_other_paragraphs(data: Path) -> None:
    texts = paragraphs(data, "11", "35")[:500]
    table = embed(column(texts), SemanticDuplicates())
    sets = [shingles(text) for text in texts]
    cosine = table @ table.T
    pairs = [(i, j) for i in range(len(texts)) for j in range(i)]
    alike = [cosine[i, j] for i, j in pairs if jaccard(sets[i], sets[j]) >= 0.9]
    unlike = [cosine[i, j] for i, j in pairs if not sets[i] & sets[j]]
    assert len(alike) > 200
    assert np.percentile(alike, 2) > 0.95
    assert np.percentile(unlike, 99.9) < 0.5


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """A tiny random BERT with its tokenizer."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "encoder"
    folder.mkdir()
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "on", "mat", "and", "reading"]
    (folder / "vocab.txt").write_text("\n".join(names))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=12, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=16,
    )  # fmt: skip
    transformers.set_seed(0)
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def test_an_encoder_model_gives_the_mean_of_its_last_states(encoder: Path) -> None:
    import torch
    import transformers

    settings = SemanticDuplicates(embedding=str(encoder))
    long = "the cat sat " * 50
    table = embed(column([*TEXTS, long]), settings)
    assert table.shape == (len(TEXTS) + 1, 32) == (len(TEXTS) + 1, width(settings))
    assert np.allclose(np.linalg.norm(table, axis=1), 1, atol=1e-5)
    assert np.array_equal(table[0], table[4])
    assert np.array_equal(embed(column(TEXTS[3:4]), settings)[0], table[3])
    tokens = transformers.AutoTokenizer.from_pretrained(encoder)(TEXTS[0], return_tensors="pt")
    model = transformers.AutoModel.from_pretrained(encoder).eval()
    with torch.no_grad():
        mean = model(**tokens).last_hidden_state[0].mean(0).numpy()
    assert np.allclose(table[0], mean / np.linalg.norm(mean), atol=1e-5)


@pytest.mark.parametrize("config", [None, "{", "[]", json.dumps({"hidden_size": 8})])
def test_a_folder_without_an_encoder_is_one_sentence(tmp_path: Path, config: str | None) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(RequestError, match="encoder"):
        embed(column(["a"]), SemanticDuplicates(embedding=str(tmp_path)))
