"""Read the prompts of one file, or of one data set, in each format that a source may have."""

import csv
import hashlib
import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from quark.config import PromptSource
from quark.core import schemas
from quark.data.fetch import ResourceError


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt; `toxicity` is its published score in [0, 1], None where there is none."""

    text: str
    source: str
    toxicity: float | None = None

    @property
    def id(self) -> str:
        """First 16 hexadecimal digits of the text's SHA-256."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]


def read_file(resource: str, source: PromptSource, file: Path) -> list[Prompt]:
    """Read one file's prompts, stripped; empty lines become empty prompts, which are counted."""
    if file.is_dir() != (source.format == "dataset"):
        wants = "a directory" if source.format == "dataset" else "a file with the prompts"
        raise ResourceError(f"{resource}: {file}: format {source.format} reads {wants}; name one")
    prompts = []
    kind, entries = _entries(resource, source, file)
    for number, entry in entries:
        try:
            prompts.append(_parse(source, entry))
        except ValueError as fault:
            raise ResourceError(
                f"{resource}: {file.name}, {kind} {number}: {fault}; correct or remove the {kind}"
            ) from None
    if source.remove:
        cut_out = re.compile(source.remove)
        prompts = [replace(p, text=cut_out.sub("", p.text).strip()) for p in prompts]
    if source.fewest_words:
        prompts = [p for p in prompts if len(p.text.split()) >= source.fewest_words]
    if source.halves:
        prompts = [
            Prompt(half, source.name) for p in prompts for half in halves(p.text, *source.halves)
        ]
    if not any(prompt.text for prompt in prompts):
        raise ResourceError(f"{resource}: {file.name} holds no prompt; name another file")
    return prompts


def halves(text: str, fewest: int, most: int) -> list[str]:
    """The first halves of a text's sentences, as DExperts makes prompts (protocol 3).

    A sentence ends with . ! or ? and white space. Its half ends at the middle word; it is a prompt
    if it has `fewest` to `most` words. Line breaks of HTML count as white space.
    """
    sentences = re.split(r"(?<=[.!?])\s+", re.sub(r"<br\s*/?>", " ", text))
    words = [sentence.split() for sentence in sentences]
    return [" ".join(w[: len(w) // 2]) for w in words if fewest <= len(w) // 2 <= most]


def _entries(
    resource: str, source: PromptSource, file: Path
) -> tuple[str, Iterator[tuple[int, str | dict[str, Any]]]]:
    """The word for a file's entries, row or line, and the entries, numbered from 1."""
    if source.format == "parquet":
        return "row", _rows(resource, source, file)
    if source.format == "csv":
        return "row", _records(resource, source, file)
    if source.format == "dataset":
        return "row", _dataset(resource, source, file)
    return "line", _lines(resource, file)


def _records(
    resource: str, source: PromptSource, file: Path
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number the rows of a CSV file from 1, without its header."""
    number = 0
    try:
        with file.open(encoding="utf-8-sig", newline="") as content:
            for row in csv.DictReader(content, strict=True):
                number += 1
                yield number, row
    except (UnicodeDecodeError, csv.Error) as fault:
        raise ResourceError(
            f"{resource}: {file.name}, after row {number}: {fault}; convert or correct the file"
        ) from None


def _dataset(
    resource: str, source: PromptSource, folder: Path
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number the rows of a data set from 1; each has the configured columns alone."""
    import datasets  # takes a second

    wanted = [name for name in (source.text, source.toxicity) if name]
    split = source.split or "train"
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as cache:
        try:
            table = datasets.load_dataset(str(folder), split=split, cache_dir=cache)
        except (ValueError, OSError, datasets.exceptions.DatasetsError) as fault:
            raise ResourceError(
                f"{resource}: {folder.name}: the library `datasets` cannot read split {split!r}: "
                f"{fault}; name another split or correct the files"
            ) from None
        held = table.column_names
        if missing := [name for name in wanted if name.split(".")[0] not in held]:
            raise ResourceError(
                f"{resource}: {folder.name}: no column {missing[0]!r}, it has {', '.join(held)}"
            )
        rows = table.select_columns(sorted({name.split(".")[0] for name in wanted}))
        yield from enumerate(rows, 1)


def _lines(resource: str, file: Path) -> Iterator[tuple[int, str]]:
    """Number the lines from 1. Only a newline ends a line, not the other separators of Unicode."""
    with file.open("rb") as content:
        for number, line in enumerate(content, 1):
            try:
                yield number, line.decode("utf-8-sig").strip()
            except UnicodeDecodeError:
                raise ResourceError(
                    f"{resource}: {file.name}, line {number}: not UTF-8; convert the file"
                ) from None


def _rows(resource: str, source: PromptSource, file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number the rows of a Parquet file from 1; each has the configured columns alone."""
    wanted = [name for name in (source.text, source.toxicity) if name]
    try:
        table = pq.ParquetFile(file)
    except schemas.UNREADABLE as fault:
        raise ResourceError(f"{resource}: {file.name}: no Parquet file: {fault}") from None
    held = table.schema_arrow.names
    if missing := [name for name in wanted if name.split(".")[0] not in held]:
        raise ResourceError(
            f"{resource}: {file.name}: no column {missing[0]!r}, it has {', '.join(held)}"
        )
    number = 0
    try:
        for batch in table.iter_batches(columns=wanted):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except schemas.UNREADABLE as fault:
        raise ResourceError(
            f"{resource}: {file.name}, after row {number}: {fault}; fetch or write the file again"
        ) from None


def _parse(source: PromptSource, entry: str | dict[str, Any]) -> Prompt:
    """Make a prompt of one line or row; a ValueError says what is wrong with it."""
    if source.format == "lines" or not entry:
        return Prompt(str(entry), source.name)
    row = entry
    if isinstance(entry, str):
        try:
            row = json.loads(entry)
        except (json.JSONDecodeError, RecursionError) as fault:
            raise ValueError(f"not valid JSON ({fault})") from None
    text = _field(row, source.text or "")
    if not isinstance(text, str):
        raise ValueError(f"{source.text} = {text!r} is no text")
    text.encode()  # JSON can hold half a character, which no file can; this is a ValueError
    toxicity = _field(row, source.toxicity) if source.toxicity else None
    if toxicity is None:
        return Prompt(text.strip(), source.name)
    if type(toxicity) not in (int, float) or not 0 <= toxicity <= 1:
        raise ValueError(f"{source.toxicity} = {toxicity!r} is no number from 0 to 1")
    return Prompt(text.strip(), source.name, float(toxicity))


def _field(row: Any, path: str) -> Any:
    """Return a field of a row; dots lead into nested objects, as in "prompt.text"."""
    for key in path.split("."):
        if not isinstance(row, dict) or key not in row:
            raise ValueError(f"no field {path!r}")
        row = row[key]
    return row
