"""The published columns of a row, with the confidence in each number."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quark.core.schemas import TableError
from quark.reporting.tables.columns import Row
from quark.reporting.tables.text import read_csv
from quark.tasks import Published


def read_published(file: Path, which: Published) -> dict[tuple[str, ...], dict[str, str]]:
    """Return the published cells by split, method and metric; a user's own task has none."""
    found = read_csv(file, empty=True)
    key = ("split", "method", "metric")
    wanted = {*key, "table", "value", "source", "confidence"}
    if missing := wanted - set(found[0] if found else wanted):
        raise TableError(f"{file}: no column {', '.join(sorted(missing))}")
    return {tuple(c[k] for k in key): c for c in found if c["table"] == which.table}


def published_columns(
    settings: Mapping[str, Any],
    which: Published,
    cells: dict[tuple[str, ...], dict[str, str]],
    file: Path | None,
) -> Row:
    """Return the published columns of one row, values as published; None: no counterpart."""
    split, method = which.splits.get(settings["split"]), which.methods.get(settings["method"])
    every = (*which.metrics, *which.pooled)
    row: Row = dict.fromkeys(f"published_{n}" for n in ("method", *every, "source", "confidence"))
    if not split or not method or settings["decoding"] != which.decoding:
        return row
    try:
        found = {m: cells[split, method, m] for m in which.given(settings["split"])}
    except KeyError as error:
        raise TableError(f"{file}: table {which.table}: no cell {error}") from None
    row |= {f"published_{metric}": cell["value"] for metric, cell in found.items()}
    source, confidence = (  # a source may itself hold "; "
        sep.join(f"{metric}: {cell[key]}" for metric, cell in found.items())
        for key, sep in (("source", " | "), ("confidence", "; "))
    )
    return row | {
        "published_method": method,
        "published_source": source,
        "published_confidence": confidence,
    }
