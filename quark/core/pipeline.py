"""The workflow's own files: those of the clone, or those that the installed package carries.

setup.py reads `PARTS` from this file, so it imports nothing that must be installed.
"""

import shutil
from pathlib import Path

PARTS = ("Snakefile", "workflow", "config", "profiles", "tests/inputs/prompts.txt")
"""What a directory needs to run the workflow in; the last one is for `config/scale/test.yaml`."""
PACKAGE = Path(__file__).resolve().parents[1]
CARRIED = PACKAGE / "pipeline"
"""Where a package that was built carries the parts; a clone has no such folder."""
PIPELINE = CARRIED if CARRIED.is_dir() else PACKAGE.parent


def copy(source: Path, folder: Path) -> None:
    """Copy the parts from one directory to another, without what Python or Snakemake left there."""
    for part in PARTS:
        begin, end = source / part, folder / part
        end.parent.mkdir(parents=True, exist_ok=True)
        if begin.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", ".snakemake")
            shutil.copytree(
                begin, end, ignore=ignored, copy_function=shutil.copyfile, dirs_exist_ok=True
            )
        else:
            shutil.copyfile(begin, end)


def init(folder: Path) -> None:
    """Make a directory in which `snakemake` runs the workflow.

    Raises:
        FileExistsError: the directory is not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty: name a new directory")
    copy(PIPELINE, folder)
