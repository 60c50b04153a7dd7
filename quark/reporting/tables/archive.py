"""An archive of evaluations: what a table needs of them, in one small file.

A run of many seeds can be made in pieces, on several days or machines. Each piece leaves an archive
of some hundred kilobytes; one table can be made from several archives. An archive is a zip file
with `settings.json` and `prompts.parquet` of each evaluation, under
TASK/METHOD/seed-S/SPLIT/DECODING/.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile, ZipInfo

from quark.core import files
from quark.core.schemas import TableError
from quark.reporting.tables.measured import check, load

KEPT = ("settings.json", "prompts.parquet")


def pack(evaluations: Sequence[Path], out: Path) -> None:
    """Write an archive of evaluations; the same ones in the same order give the same bytes.

    Args:
        evaluations: folders, or their metrics.json, or archives, which are copied.
        out: the archive.

    Raises:
        TableError: an evaluation is incomplete, is given twice, or does not fit the others.
    """
    with unpacked(evaluations) as folders, files.whole(out) as made:
        runs = [load(folder) for folder in folders]
        check(runs)
        with ZipFile(made, "w", ZIP_DEFLATED) as archive:
            for run in runs:
                how = run.settings
                place = "/".join(str(how[key]) for key in ("task", "method"))
                place += f"/seed-{how['seed']}/{how['split']}/{how['decoding']}"
                for name in KEPT:
                    entry = ZipInfo(f"{place}/{name}")  # has a fixed date
                    archive.writestr(entry, (run.folder / name).read_bytes(), ZIP_DEFLATED)


@contextmanager
def unpacked(evaluations: Sequence[Path]) -> Iterator[list[Path]]:
    """Yield the folders of evaluations; those of an archive exist only within the block.

    Raises:
        TableError: a file is no archive of evaluations.
    """
    with TemporaryDirectory() as scratch:
        found: list[Path] = []
        for number, given in enumerate(evaluations):
            if given.suffix != ".zip":
                found.append(given.parent if given.name == "metrics.json" else given)
                continue
            to = Path(scratch) / str(number) / given.name  # errors name the archive
            found += [to / place for place in _extract(given, to)]
        yield found


def _extract(archive: Path, to: Path) -> list[str]:
    """Extract an archive; return its evaluations' folders in the archive's order."""
    try:
        with ZipFile(archive) as opened:
            names = opened.namelist()
            opened.extractall(to)  # never outside `to`: zipfile drops drives and `..`
    except (OSError, BadZipFile) as error:
        raise TableError(f"{archive}: no archive of evaluations: {error}") from None
    folders = dict.fromkeys(name.rpartition("/")[0] for name in names)
    if not folders or {name.rpartition("/")[2] for name in names} != set(KEPT):
        raise TableError(f"{archive}: no archive of evaluations: `quark archive` makes one")
    return list(folders)
