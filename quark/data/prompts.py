"""Prompts: read from several sources, freed of duplicates and cut into disjoint splits."""

import csv
import hashlib
import json
import math
import re
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import quark
from quark.config import Prompts, PromptSource, Split
from quark.core import schemas
from quark.core.files import sha256, sums, whole, write_json
from quark.data.fetch import ResourceError, fetch
from quark.scorers import Scorer, load_scorer


@dataclass(frozen=True)
class Prompt:
    """One prompt; `toxicity` is its published score in [0, 1], None where there is none."""

    text: str
    source: str
    toxicity: float | None = None

    @property
    def id(self) -> str:
        """First 16 hexadecimal digits of the text's SHA-256."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]


def fetch_prompts(name: str, prompts: Prompts, out: Path) -> None:
    """Write `out`/SPLIT.parquet for `train` and every configured split, and `out`/manifest.json.

    The prompts stand in the order of sha256("SEED:TEXT"), so the same texts give the same splits
    on every machine, and a new source moves no old prompt past another. A split takes the first
    prompts of its kind that no split before it took; those left over are `train` (protocol 2). A
    source that a split names gives prompts to such splits only, so the rest of it is left out.

    Raises:
        ResourceError: a source cannot be fetched or read, the scorer fails, or a split stays short.
    """
    resource = f"prompts.{name}"
    scorer = _scorer(resource, prompts.scorer)
    read, files = _read_sources(resource, prompts)
    wanted = without(resource, read, prompts.sources)
    kept = deduplicate(wanted)
    toxic = _toxic(resource, kept, scorer, prompts.toxic_from)
    splits = cut(resource, in_order(kept, prompts.seed), toxic, prompts.splits)
    with whole(out) as made:
        for split, rows in splits.items():
            about = {"prompts": name, "split": split}
            schemas.write(made / f"{split}.parquet", schemas.PROMPTS, _columns(rows, toxic), about)
        manifest = {
            "name": name,
            "source": prompts.model_dump(mode="json", exclude_none=True),
            "sources": {
                s: _counts(s, read, wanted, kept, splits) | {"files": files[s]} for s in files
            },
            "splits": {
                split: {
                    "prompts": len(rows),
                    "toxic": sum(toxic[prompt.id] for prompt in rows),
                    "sources": dict(Counter(prompt.source for prompt in rows)),
                }
                for split, rows in splits.items()
            },
            "sha256": sums(*(made / f"{split}.parquet" for split in splits)),
            "made_with": {"quark": quark.__version__, scorer.name: scorer.version},
        }
        write_json(made / "manifest.json", manifest)


def without(resource: str, read: Sequence[Prompt], sources: Sequence[PromptSource]) -> list[Prompt]:
    """Leave out empty lines and each source's own `exclude`.

    Raises:
        ResourceError: a source holds no such line as one that it excludes.
    """
    excluded = {(source.name, text) for source in sources for text in source.exclude}
    for name, text in sorted(excluded - {(prompt.source, prompt.text) for prompt in read}):
        raise ResourceError(f"{resource}.sources.{name}.exclude: it holds no line {text!r}")
    return [p for p in read if p.text and (p.source, p.text) not in excluded]


def deduplicate(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Keep one prompt of each text: the first with a published score, else the first.

    Texts are the same if they differ only in Unicode composition or white space; case counts.
    """
    kept: dict[str, Prompt] = {}
    for prompt in prompts:
        key = " ".join(unicodedata.normalize("NFC", prompt.text).split())
        if kept.setdefault(key, prompt).toxicity is None and prompt.toxicity is not None:
            kept[key] = prompt
    return list(kept.values())


def in_order(prompts: Sequence[Prompt], seed: int) -> list[Prompt]:
    """Shuffle by sha256("SEED:TEXT"): the order depends on each text and the seed alone."""
    return sorted(prompts, key=lambda p: hashlib.sha256(f"{seed}:{p.text}".encode()).digest())


def cut(
    resource: str,
    prompts: Sequence[Prompt],
    toxic: Mapping[str, bool],
    splits: Mapping[str, Split],
) -> dict[str, list[Prompt]]:
    """Draw each split's first prompts of its kind, in the order of `splits`; the rest is `train`.

    Sources that splits name are theirs: what is left of them is in no split.

    Raises:
        ResourceError: too few prompts of a split's kind are left, or none for `train`.
    """
    drawn: dict[str, list[Prompt]] = {}
    rest = list(prompts)
    named = {split.source for split in splits.values()} - {None}

    def fits(prompt: Prompt, split: Split) -> bool:
        source = prompt.source if prompt.source in named else None
        return source == split.source and split.toxic in (None, toxic[prompt.id])

    for name, split in splits.items():
        fitting = [prompt for prompt in rest if fits(prompt, split)]
        if len(fitting) < split.prompts:
            kind = {None: "", True: "toxic ", False: "non-toxic "}[split.toxic]
            of = f" of source {split.source}" if split.source else ""
            raise ResourceError(
                f"{resource}.splits.{name}: wants {split.prompts} {kind}prompts{of}, but only "
                f"{len(fitting)} are left; ask for fewer or add a source"
            )
        drawn[name] = fitting[: split.prompts]
        taken = {prompt.id for prompt in drawn[name]}
        rest = [prompt for prompt in rest if prompt.id not in taken]
    rest = [prompt for prompt in rest if prompt.source not in named]
    if not rest:
        raise ResourceError(f"{resource}.splits: no prompt is left for train; ask for fewer")
    return {"train": rest, **drawn}


def _read_sources(
    resource: str, prompts: Prompts
) -> tuple[list[Prompt], dict[str, list[dict[str, str]]]]:
    """Read every source in the configured order; also return each source's files and hashes."""
    read: list[Prompt] = []
    files: dict[str, list[dict[str, str]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for source in prompts.sources:
            key = f"{resource}.sources.{source.name}"
            found = fetch(key, source, Path(scratch))
            for file in found:
                read += _read(key, source, file)
            files[source.name] = [{"file": file.name, "sha256": sha256(file)} for file in found]
    return read, files


def _scorer(resource: str, name: str) -> Scorer:
    try:
        return load_scorer(name)
    except ValueError as error:
        raise ResourceError(f"{resource}.scorer: {error}") from None


def _toxic(
    resource: str, prompts: Sequence[Prompt], scorer: Scorer, toxic_from: float
) -> dict[str, bool]:
    """Tell for each prompt id whether it is toxic: by the published score, else by `scorer`."""
    unknown = [prompt.text for prompt in prompts if prompt.toxicity is None]
    scores = iter(scorer.score([""] * len(unknown), unknown).tolist() if unknown else [])
    toxicity = {p.id: next(scores) if p.toxicity is None else p.toxicity for p in prompts}
    if failed := sum(map(math.isnan, toxicity.values())):
        raise ResourceError(
            f"{resource}: {scorer.name} could not score {failed} of {len(unknown)} prompts; "
            "try again or name another scorer"
        )
    return {prompt_id: score >= toxic_from for prompt_id, score in toxicity.items()}


def _columns(prompts: Sequence[Prompt], toxic: Mapping[str, bool]) -> dict[str, list[Any]]:
    return {
        "prompt_id": [prompt.id for prompt in prompts],
        "text": [prompt.text for prompt in prompts],
        "source": [prompt.source for prompt in prompts],
        "toxicity": [prompt.toxicity for prompt in prompts],
        "toxic": [toxic[prompt.id] for prompt in prompts],
    }


def _counts(
    source: str,
    read: Sequence[Prompt],
    wanted: Sequence[Prompt],
    kept: Sequence[Prompt],
    splits: Mapping[str, Sequence[Prompt]],
) -> dict[str, int]:
    """How many lines of a source were left out, and why."""
    lines = [prompt for prompt in read if prompt.source == source]
    empty = sum(not prompt.text for prompt in lines)
    left = sum(prompt.source == source for prompt in wanted)
    last = sum(prompt.source == source for prompt in kept)
    used = sum(prompt.source == source for split in splits.values() for prompt in split)
    return {
        "lines": len(lines),
        "empty": empty,
        "excluded": len(lines) - empty - left,
        "duplicates": left - last,
        "kept": last,
        "unused": last - used,
    }


# -------------------------------------------------------------------------------- reading files
def _read(resource: str, source: PromptSource, file: Path) -> list[Prompt]:
    """Read one file's prompts, stripped; empty lines come as empty prompts, to be counted."""
    if not file.is_file():
        raise ResourceError(f"{resource}: {file} is a directory; name the file with the prompts")
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
    """What a file's entries are called, and the entries, numbered from 1."""
    if source.format == "parquet":
        return "row", _rows(resource, source, file)
    if source.format == "csv":
        return "row", _records(resource, source, file)
    return "line", _lines(resource, file)


def _records(
    resource: str, source: PromptSource, file: Path
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number the rows of a CSV file from 1, its header aside."""
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
