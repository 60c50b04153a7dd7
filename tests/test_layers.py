"""Folders import each other in one direction, and some libraries stay in their folders."""

from graphlib import TopologicalSorter
from pathlib import Path

import house
import pytest

FOLDERS = house.arrows()


@pytest.mark.parametrize("file", house.FILES, ids=lambda file: str(file.relative_to(house.ROOT)))
def test_imports_are_absolute(file: Path) -> None:
    assert not [name for name in house.imports(file) if name.startswith(".")], "use full names"


def test_folders_have_no_cycle() -> None:
    assert house.levels(FOLDERS)[-1] == ["core", "maths"]  # CycleError names two


def test_files_have_no_cycle() -> None:
    TopologicalSorter({file: house.modules(file) for file in house.FILES}).prepare()


def test_a_cycle_is_found() -> None:
    with pytest.raises(ValueError, match="cycle"):
        house.levels({**FOLDERS, "core": {"cli"}})


def test_methods_never_import_each_other() -> None:
    for file in (house.PACKAGE / "methods").glob("[!_]*.py"):
        others = {other.stem for other in house.modules(file) if other.parent == file.parent}
        assert others <= {"__init__"}, f"{file.name} imports {others}"


def test_libraries_stay_in_their_folders() -> None:
    for file in house.FILES:
        libraries = {name.split(".")[0] for name in house.imports(file)}
        assert "snakemake" not in libraries, f"{file}: the package does not know the workflow"
        allowed = file.parent.name == "reporting" and file.stem in {"tracking", "store"}
        assert "mlflow" not in libraries or allowed, f"{file}: only tracking and store may"


@pytest.mark.parametrize(
    "start",
    ["core", "config", "tasks", "metrics", "reporting", "stages/derive.py", "stages/judge.py"],
)
def test_what_starts_without_torch(start: str) -> None:
    begin = house.PACKAGE / start
    waiting = set(begin.rglob("*.py")) if begin.is_dir() else {begin}
    reached: set[Path] = set()
    while waiting:
        file = waiting.pop()
        reached.add(file)
        libraries = {name.split(".")[0] for name in house.imports(file, in_functions=False)}
        assert not libraries & {"torch", "transformers", "mlflow"}, f"{start} reaches {file}"
        waiting |= house.modules(file, in_functions=False) - reached


def test_the_picture_and_the_table_are_fresh() -> None:
    page = (house.ROOT / "docs/architecture.md").read_text()
    again = "python docs/house.py writes them anew"
    assert house.with_table(page, house.table(FOLDERS)) == page, again
    assert (house.ROOT / "docs/house.svg").read_text() == house.picture(FOLDERS), again
