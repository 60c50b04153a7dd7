"""Archives of evaluations: a table made from them equals the table made from the folders."""

from pathlib import Path
from zipfile import ZipFile

import pytest
from evaluations import PUBLISHED_CSV, evaluation, four

from quark.core.schemas import TableError
from quark.reporting.tables import make_table, pack


def test_pieces_make_the_same_table(tmp_path: Path) -> None:
    folders = four(tmp_path)
    make_table(folders, PUBLISHED_CSV, tmp_path / "folders.csv")
    first = [folder for folder in folders if "seed-1" in str(folder)]
    second = [folder for folder in folders if "seed-2" in str(folder)]
    pack(first, tmp_path / "1.zip")
    pack(second, tmp_path / "2.zip")
    make_table([tmp_path / "1.zip", tmp_path / "2.zip"], PUBLISHED_CSV, tmp_path / "pieces.csv")
    made = [(tmp_path / name).read_bytes() for name in ("folders.csv", "pieces.csv")]
    assert made[0] == made[1]


def test_equal_evaluations_give_equal_bytes(tmp_path: Path) -> None:
    folders = four(tmp_path)
    pack(folders, tmp_path / "1.zip")
    (folders[0] / "metrics.json").write_text("{}")  # no part of an archive
    pack(folders, tmp_path / "2.zip")
    pack([tmp_path / "1.zip"], tmp_path / "3.zip")
    one, *others = [(tmp_path / f"{n}.zip").read_bytes() for n in (1, 2, 3)]
    assert others == [one, one]


def test_what_is_no_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_text("text")
    with ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("notes/other.txt", "text")
    for name in ("a.zip", "b.zip", "c.zip"):
        with pytest.raises(TableError, match=f"{name}: no archive of evaluations"):
            make_table([tmp_path / name], None, tmp_path / "t.csv")


def test_an_evaluation_in_two_archives_is_refused(tmp_path: Path) -> None:
    folder = evaluation(tmp_path, "nontoxic", "base", 1, (0.5, 1.0))
    pack([folder], tmp_path / "1.zip")
    with pytest.raises(TableError, match=r"1\.zip.*the same evaluation as"):
        make_table([folder, tmp_path / "1.zip"], None, tmp_path / "t.csv")
