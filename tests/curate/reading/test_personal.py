"""Personal data: what is masked and what only looks like it, on hand-made lines, labelled sentences and real text."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassbox.curate.reading.personal import PLACEHOLDERS, mask

KINDS = tuple(PLACEHOLDERS)
LABELS = {"EMAIL_ADDRESS": "email", "PHONE_NUMBER": "phone", "IP_ADDRESS": "ip", "CREDIT_CARD": "card"}


def masked(text: str, kinds: tuple[str, ...] = KINDS) -> str:
    return mask(pa.array([text], pa.large_string()), kinds)[0][0].as_py()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Write to (John.Doe+x@mail.uni-bonn.de).", "email"),
        ("邮箱zhang_san@163.com。", "email"),
        ("from 203.119.25.5, port 22", "ip"),
        ("at 2a00:1450:4001:81b::200e now", "ip"),
        ("Call 415-555-2671 today", "phone"),
        ("Tel.: +49 (0)228 73 7280", "phone"),
        ("电话13812345678。", "phone"),
        ("my mobile is 723 813 266", "phone"),
        ("card 4111 1111 1111 1111, thanks", "card"),
        ("pay with 378282246310005.", "card"),
        ("key = 'AKIAIOSFODNN7EXAMPLE'", "key"),
        ("token ghp_0123456789abcdefghijABCDEFGHIJ012345", "key"),
    ],
)
def test_personal_data_gets_its_placeholder(text: str, kind: str) -> None:
    out, (counts,) = mask(pa.array([text], pa.large_string()), KINDS)
    assert counts == {kind: 1}
    assert PLACEHOLDERS[kind].decode() in out[0].as_py()
    assert masked(text, tuple(other for other in KINDS if other != kind)) == text or kind == "card"


@pytest.mark.parametrize(
    "text",
    [
        "@decorator and user@localhost and git@github.com:a/b.git",
        "someone@example.com, a@b.example, icon@2x.png",
        "10.0.0.1 192.168.1.7 127.0.0.1 203.0.113.9 255.255.255.255 1.1.1.1",
        "version 12.34.56.78 and v10.20.30.40; section 1.2.3.4",
        "12:34:56, ::, 00:11:22:33:44:55, std::a::b::c, aa:bb:cc:dd:ee:ff:00:11",
        "4111 1111 1111 1112 fails the check; 1234567890123452 has no issuer",
        "2019-05-12 10:30:00, 05.12.2019, 1,000,000,000, 3.14159265358979",
        "01 02 03 04 05 06 07 08 09 10 11 12",
        "0x1234567890 a1234567890 1234567890abc 00111111",
        "task-list-of-things-to-do-in-the-next-month sk-short",
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert masked(text) == text


def test_a_private_key_goes_whole_and_the_lines_around_it_stay() -> None:
    key = "-----BEGIN RSA PRIVATE KEY-----\n" + "QUFB" * 100 + "\n-----END RSA PRIVATE KEY-----"
    assert masked(f"before\n{key}\n\nafter") == "before\n|||KEY|||\n\nafter"
    assert masked("-----BEGIN RSA PRIVATE KEY-----\nno end") == "-----BEGIN RSA PRIVATE KEY-----\nno end"


def test_labelled_sentences(data: Path) -> None:
    """Recall and precision by kind; telephone numbers that no sign and no word gives away are left."""
    with gzip.open(data / "pii_presidio" / "pii_even_templates.jsonl.gz") as file:
        rows = [json.loads(line) for line in file]
    texts, counts = mask(pa.array([row["full_text"] for row in rows], pa.large_string()), KINDS)
    wanted, found, hit = Counter(), Counter(), Counter()
    for row, text, count in zip(rows, texts.to_pylist(), counts, strict=True):
        spans = [(LABELS[s["entity_type"]], s["entity_value"]) for s in row["spans"] if s["entity_type"] in LABELS]
        wanted.update(kind for kind, _ in spans)
        found.update(count)
        hit.update(kind for kind, value in spans if value not in text and count.get(kind))
    assert {kind: hit[kind] / wanted[kind] for kind in ("email", "ip", "card")} == {"email": 1, "ip": 1, "card": 1}
    assert hit["phone"] / wanted["phone"] > 0.85
    assert all(hit[kind] >= 0.97 * found[kind] for kind in found)


def test_code_and_mathematics_have_next_to_none(data: Path) -> None:
    code = pq.read_table(data / "code_repo_files" / "a.parquet").column("contents").to_pylist()
    with gzip.open(data / "math" / "math_test_minus_500.jsonl.gz") as file:
        problems = [json.loads(line)["problem"] for line in file]
    _, counts = mask(pa.array([*code, *problems], pa.large_string()), ("phone", "card", "ip", "key"))
    assert sum((Counter(count) for count in counts), Counter()).total() == 0


def test_batches_do_not_matter(data: Path) -> None:
    texts = pq.read_table(data / "cc_annotated" / "cc_100_docs.parquet").column("contents").to_pylist()
    whole, counts = mask(pa.array(texts, pa.large_string()), KINDS)
    assert sum(map(len, counts)) > 3
    sliced = [mask(pa.array(texts, pa.large_string())[i : i + 7], KINDS) for i in range(0, len(texts), 7)]
    assert [text for part, _ in sliced for text in part.to_pylist()] == whole.to_pylist()
    assert [count for _, some in sliced for count in some] == counts


@settings(deadline=None)
@given(st.lists(st.text("a1@.-+ ()0:é电话4|\nABEGIN", max_size=40), max_size=4))
def test_any_text_can_be_masked_twice(texts: list[str]) -> None:
    once, counts = mask(pa.array(texts, pa.large_string()), KINDS)
    assert len(once) == len(counts) == len(texts)
    assert [text.count("\n") for text in once.to_pylist()] == [text.count("\n") for text in texts]
    assert all(text == new for text, new, count in zip(texts, once.to_pylist(), counts, strict=True) if not count)


@pytest.mark.parametrize("unit", ["1", "@", "a@", "1.", "+1 ", "(0", "a:", "-----BEGIN ", "ghp_", "1-", "a@b."])
def test_hostile_text_comes_to_an_end(unit: str) -> None:
    text = unit * 100_000
    assert masked(text).count("|||") % 2 == 0
