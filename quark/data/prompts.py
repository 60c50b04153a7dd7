"""Prompts: read from several sources, deduplicated and cut into disjoint splits."""

import hashlib
import math
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import quark
from quark.config import Prompts, PromptSource, Split
from quark.core import schemas
from quark.core.files import sha256, sums, whole, write_json
from quark.data.fetch import ResourceError, fetch
from quark.data.prompt_files import Prompt, read_file
from quark.scorers import Scorer, load_scorer


def fetch_prompts(name: str, prompts: Prompts, out: Path) -> None:
    """Write `out`/SPLIT.parquet for `train` and every configured split, and `out`/manifest.json.

    The prompts are sorted by sha256("SEED:TEXT"), so the same texts give the same splits on every
    machine, and a new source does not change the order of old prompts. A split takes the first
    prompts of its kind that no split before it took; the rest is `train` (protocol 2). A source
    that a split names gives prompts to such splits only; its other prompts are left out.

    Raises:
        ResourceError: a source cannot be read, the scorer fails, or a split is short.
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
            parts = (
                _columns(rows[first : first + schemas.ROW_GROUP], toxic)
                for first in range(0, len(rows), schemas.ROW_GROUP)
            )
            schemas.write_parts(made / f"{split}.parquet", schemas.PROMPTS, parts, about)
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
        ResourceError: a source excludes a line that it does not hold.
    """
    excluded = {(source.name, text) for source in sources for text in source.exclude}
    for name, text in sorted(excluded - {(prompt.source, prompt.text) for prompt in read}):
        raise ResourceError(f"{resource}.sources.{name}.exclude: it holds no line {text!r}")
    return [p for p in read if p.text and (p.source, p.text) not in excluded]


def deduplicate(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Keep one prompt of each text: the first with a published score, else the first.

    Texts are the same if they differ only in Unicode composition or white space; case counts.
    """
    kept: dict[bytes, Prompt] = {}
    for prompt in prompts:
        same = " ".join(unicodedata.normalize("NFC", prompt.text).split())
        key = hashlib.sha256(same.encode()).digest()  # less memory than the text
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

    A source that splits name is for these splits only: its other prompts are in no split.

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
                read += read_file(key, source, file)
            held = [
                (file.relative_to(path.parent), file)
                for path in found
                for file in ([path] if path.is_file() else sorted(path.rglob("*")))
                if file.is_file()
            ]
            files[source.name] = [{"file": str(n), "sha256": sha256(file)} for n, file in held]
    return read, files


def _scorer(resource: str, name: str) -> Scorer:
    try:
        return load_scorer(name)
    except ValueError as error:
        raise ResourceError(f"{resource}.scorer: {error}") from None


def _toxic(
    resource: str, prompts: Sequence[Prompt], scorer: Scorer, toxic_from: float
) -> dict[str, bool]:
    """Whether each prompt is toxic, by prompt id: from its published score, else from `scorer`."""
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
