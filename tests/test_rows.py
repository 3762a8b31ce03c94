"""Every row that binds is held by a test; and the checker itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rows import BadRow, Mark, Row, marks, marks_of, parse, rows, without_a_test


def test_every_row_that_binds_has_a_test_that_holds_it() -> None:
    marked = {mark.row for mark in marks()}
    assert without_a_test(rows(), marked) == []


def test_every_mark_names_a_row_that_there_is() -> None:
    known = rows()
    assert [f"{mark.place}: {mark.row}" for mark in marks() if mark.row not in known] == []


def test_every_bug_and_limit_of_qmails_list_is_in_some_row() -> None:
    assert {row.number for row in rows().values()} - {0} == set(range(1, 56))


def test_a_file_of_rows_is_paragraphs(tmp_path: Path) -> None:
    file = tmp_path / "one.txt"
    file.write_text("# for the reader\n\nsmtpd-a  binds\n  First\n  and second.\n\nsmtpd-b  free  K 12\n  Third.\n")
    assert list(parse(file)) == [
        Row("smtpd-a", True, "", 0, "First and second.", "one.txt: line 3"),
        Row("smtpd-b", False, "K", 12, "Third.", "one.txt: line 7"),
    ]


@pytest.mark.parametrize(
    "text", ["a binds\n  x\n", "a  binds\n", "a  binds\nx\n", "A  binds\n  x\n", "a  free  X 1\n  x\n"]
)
def test_a_paragraph_that_is_no_row_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.txt"
    file.write_text(f"b  free\n  y\n\n{text}")
    with pytest.raises(BadRow, match=r"bad\.txt: line 4: '[aA]"):
        list(parse(file))


def test_a_name_is_given_once(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x  free\n  y\n")
    (tmp_path / "b.txt").write_text("x  free\n  y\n")
    with pytest.raises(BadRow, match=r"b\.txt: line 1: x is at a\.txt: line 1 already"):
        rows(tmp_path)


def test_a_row_that_binds_and_has_no_test_is_found() -> None:
    known = {name: Row(name, name != "free", "", 0, "", "") for name in ("held", "bare", "free")}
    assert without_a_test(known, {"held"}) == ["bare"]


MARKED = """
import pytest

CASES = [
    1,  # row: in-a-table
]


# row: above
@pytest.mark.parametrize("x", [1])  # row: beside
def test_one(x):
    # row: within, and-another
    assert "# row: in a string"


async def test_two():
    pass  # row: last
"""


def test_a_mark_belongs_to_the_test_around_it_or_below_it() -> None:
    assert [(mark.row, mark.test) for mark in marks_of(MARKED, "test_x.py")] == [
        ("in-a-table", "test_x.py::CASES"),
        ("above", "test_x.py::test_one"),
        ("beside", "test_x.py::test_one"),
        ("within", "test_x.py::test_one"),
        ("and-another", "test_x.py::test_one"),
        ("last", "test_x.py::test_two"),
    ]


@pytest.mark.parametrize(
    "source",
    ["def f():\n    pass  # row: a\n", "def test_a():\n    pass\n# row: a\n", "def test_a():\n    pass  # row: a b\n"],
)
def test_a_mark_on_no_test_or_without_a_name_is_refused(source: str) -> None:
    with pytest.raises(BadRow, match=r"test_x\.py:"):
        list(marks_of(source, "test_x.py"))


def test_a_dialogue_file_is_marked_in_a_comment(tmp_path: Path) -> None:
    file = tmp_path / "dialogues" / "smtp" / "a.txt"
    file.parent.mkdir(parents=True)
    file.write_text("# row: one, two\nS: # row: three\n")
    assert list(marks(tmp_path)) == [
        Mark("one", "dialogues/smtp/a.txt", "dialogues/smtp/a.txt:1"),
        Mark("two", "dialogues/smtp/a.txt", "dialogues/smtp/a.txt:1"),
    ]
