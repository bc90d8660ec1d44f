"""Agreement of people with the rules: hand-made sheets, a kappa worked out by hand, bad sheets."""

import csv
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from glassbox.curate.sheet import agreement, wilson
from glassbox.errors import RequestError


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    """A stage that kept k0 .. k4 and dropped d0 .. d4."""
    folder = tmp_path / "documents"
    for name, letter in (("documents", "k"), ("dropped", "d")):
        (folder / name).mkdir(parents=True)
        pq.write_table(pa.table({"id": [f"{letter}{n}" for n in range(5)]}), folder / name / "a.parquet")
    return folder


def filled(path: Path, verdicts: dict[str, str]) -> Path:
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["id", "source", "text", "verdict", "note"])
        out.writerows([name, "web", "some,\ntext", verdict, ""] for name, verdict in verdicts.items())
    return path


def test_agreement_and_kappa_of_a_sheet(stage: Path, tmp_path: Path) -> None:
    verdicts = {
        **dict.fromkeys(["k0", "k1", "k2", "d0"], "keep"),
        **dict.fromkeys(["k3", "d1", "d2"], " Drop "),
        "d3": "",
    }
    found = agreement(filled(tmp_path / "s.csv", verdicts), stage)
    assert found["documents"] == 7
    assert found["agreement"] == pytest.approx(5 / 7)
    assert found["human/machine"] == {"keep/keep": 3, "keep/drop": 1, "drop/keep": 1, "drop/drop": 2}
    chance = 4 / 7 * 4 / 7 + 3 / 7 * 3 / 7
    assert found["kappa"] == pytest.approx((5 / 7 - chance) / (1 - chance))
    assert found["disagreed"] == ["d0", "k3"]
    assert found["low"] < 5 / 7 < found["high"]


def test_the_interval_is_wilsons() -> None:
    # Worked examples of the formula: 81 of 263 (Newcombe 1998, table I, method 3), and the ends.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(20, 20)[1] == 1.0


@pytest.mark.parametrize(
    ("verdicts", "message"),
    [
        ({"k0": ""}, "no verdict is filled in"),
        ({"k0": "maybe"}, "row 2: 'maybe' is no verdict"),
        ({"elsewhere": "keep"}, "document elsewhere is not in"),
    ],
)
def test_bad_sheets_are_one_sentence(stage: Path, tmp_path: Path, verdicts: dict[str, str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        agreement(filled(tmp_path / "s.csv", verdicts), stage)


def test_a_file_that_is_no_sheet_is_refused(stage: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00binary")
    (tmp_path / "b.csv").write_text("name,verdict\nx,keep\n")
    with pytest.raises(RequestError, match="cannot be read as a sheet"):
        agreement(tmp_path / "a.csv", stage)
    with pytest.raises(RequestError, match="needs the columns id and verdict"):
        agreement(tmp_path / "b.csv", stage)
