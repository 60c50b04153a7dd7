"""`quark init`: the workflow's files from a clone, and from an installed package."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from quark.core.pipeline import PARTS, PIPELINE, init

ROOT = Path(__file__).parents[2]


def tracked() -> dict[str, bytes]:
    """The parts' files that git knows, by path."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", *PARTS], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {name: (ROOT / name).read_bytes() for name in listed.stdout.split("\0") if name}


def held(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_a_new_directory_has_the_clones_files(tmp_path: Path) -> None:
    assert PIPELINE == ROOT
    init(tmp_path / "mine")
    made = held(tmp_path / "mine")
    assert {name: made[name] for name in tracked()} == tracked()
    assert not [name for name in made if "__pycache__" in name]


def test_a_directory_with_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is not empty: name a new directory"):
        init(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.slow
def test_an_installed_package_makes_a_directory_that_snakemake_runs(tmp_path: Path) -> None:
    """The package is built from the files that git knows, and unpacked as pip does."""
    for name, content in tracked().items():
        (tmp_path / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "clone" / name).write_bytes(content)
    for name in ("quark", "setup.py", "pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        (tmp_path / "clone" / name).symlink_to(ROOT / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps"]
    subprocess.run([*pip, "-w", tmp_path, tmp_path / "clone"], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    carried = {file.name for file in (tmp_path / "site/quark/tools/harness").glob("*.yaml")}
    assert carried == {"_toxicity.yaml", "provoking.yaml", "challenging.yaml"}
    there = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(tmp_path / "site")}}
    subprocess.run([sys.executable, "-m", "quark.cli", "init", "mine"], check=True, **there)
    assert held(tmp_path / "mine") == tracked()
    # Outside of it a verb uses the package's configuration; inside, the directory's.
    show = [sys.executable, "-m", "quark.cli", "show", "seeds"]
    (tmp_path / "mine/config/config.yaml").write_bytes(
        tracked()["config/config.yaml"].replace(b"seeds: [1]", b"seeds: [7]")
    )
    for place, seeds in ((tmp_path, "1"), (tmp_path / "mine", "7")):
        told = subprocess.run(show, capture_output=True, text=True, **{**there, "cwd": place})
        assert told.stdout.split() == ["[", seeds, "]"], told.stderr
    plan = [sys.executable, "-m", "snakemake", "-n", "--cores", "1", "results/tables/toxicity.csv"]
    plan += ["--configfile", "config/scale/test.yaml"]
    done = subprocess.run(
        plan, capture_output=True, text=True, **{**there, "cwd": tmp_path / "mine"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rule quantize:" in done.stdout
