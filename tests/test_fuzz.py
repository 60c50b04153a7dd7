"""Damaged input works or ends in an error of ours that names file, key or row.

The examples are inputs that once ended otherwise.
"""

import copy
import json
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from oracle import EMBEDDING
from runs import write_model

from quark.config import ConfigError, Prompts, load
from quark.core import files, schemas
from quark.core.files import DamagedError
from quark.core.schemas import TableError
from quark.data import ResourceError, fetch_prompts
from quark.data import prompts as prompts_module
from quark.models import checkpoint
from quark.models.lm import ModelError, Policy

ROOT = Path(__file__).parents[1]
DEFAULT = ROOT / "config/config.yaml"
TEST = ROOT / "config/scale/test.yaml"
OURS = (ConfigError, ResourceError, TableError, DamagedError, ModelError)

FUZZ = partial(settings, phases=(Phase.explicit, Phase.generate))  # shrinking takes minutes


def ends_well(work: Callable[[], object], *named: str) -> bool:
    """Whether some work ends; if it raises, then an error of ours that names one of these."""
    try:
        work()
    except OURS as error:
        assert any(name in str(error) for name in named), error
        return False
    return True


# ------------------------------------------------------------------------------ damaged bytes
Edits = list[tuple[int, int, bytes]]
ALL = 10**9  # bytes: the rest of any file


@st.composite
def edits(draw: st.DrawFn, pieces: tuple[bytes, ...] = ()) -> Edits:
    """Places of a file, in millionths of it, how many bytes go there, and what comes instead."""
    piece = st.binary(max_size=4)
    if pieces:
        piece |= st.sampled_from(pieces)
    place = st.integers(0, 10**6)
    length = st.integers(0, 3) | st.just(ALL)
    return draw(st.lists(st.tuples(place, length, piece), min_size=1, max_size=3))


def edited(content: bytes, changes: Edits) -> bytes:
    for place, length, piece in changes:
        at = place * len(content) // 10**6
        content = content[:at] + piece + content[at + length :]
    return content


# ------------------------------------------------------------------------------ configurations
CONTENT = {  # without aliases
    file: json.loads(json.dumps(yaml.safe_load(file.read_text()))) for file in (DEFAULT, TEST)
}
YAML = (b"\t", b"\n", b": ", b"- ", b"? ", b"<<: ", b"*mle", b"&a ", b"!!int ", b"!!timestamp x",
        b"{", b"[", b'"', b"'", b"|", b"\x00", b"\xff", b"\xef\xbb\xbf", b"---\n", b"%", b"=",
        b"null", b"1e999", b"0x", b"2026-13-45")  # fmt: skip
WILD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, -(10**400), 0, -1]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["../x", "quark", "1", "a" * 300]),
    st.lists(st.integers() | st.text(max_size=3), max_size=3),
    st.dictionaries(st.text(max_size=3) | st.integers(), st.integers(), max_size=2),
)
KINDS = ("delete", "put", "rename", "copy", "swap")


def places(section: Any) -> Iterator[tuple[Any, Any]]:
    """Each container of a configuration, and a key or index of it."""
    keys = section if isinstance(section, dict) else range(len(section))
    for key in list(keys):
        yield section, key
        if isinstance(section[key], dict | list):
            yield from places(section[key])


def mutated(content: dict[str, Any], changes: list[tuple[str, int, int, Any]]) -> dict[str, Any]:
    content = copy.deepcopy(content)
    for kind, one, other, wild in changes:
        known = list(places(content))
        if not known:
            break
        (section, key), (there, name) = known[one % len(known)], known[other % len(known)]
        if kind == "delete":
            del section[key]
        elif kind == "put":
            section[key] = wild
        elif kind == "rename" and isinstance(section, dict):
            section[f"{key}x" if isinstance(wild, float | list | dict) else wild] = section.pop(key)
        elif kind == "copy":
            section[key] = copy.deepcopy(there[name])
        else:
            kept = copy.deepcopy(section[key])
            section[key] = copy.deepcopy(there[name])
            there[name] = kept
    return content


CHANGES = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 10**4), st.integers(0, 10**4), WILD),
    min_size=1,
    max_size=3,
)


def dumped(content: dict[str, Any]) -> bytes:
    text: str = yaml.dump(content, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper))
    return text.encode()


def loads(content: bytes, *below: Path) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "fuzzed.yaml"
        file.write_bytes(content)
        return ends_well(lambda: load([*below, file]), "fuzzed.yaml", *CONTENT[DEFAULT])


@pytest.mark.slow
@FUZZ(max_examples=30)
@given(CHANGES)
def test_a_changed_default(changes: list[tuple[str, int, int, Any]]) -> None:
    loads(dumped(mutated(CONTENT[DEFAULT], changes)))


@pytest.mark.slow
@FUZZ(max_examples=100)
@given(CHANGES)
@example([("rename", 0, 0, None)])
def test_a_changed_file_over_it(changes: list[tuple[str, int, int, Any]]) -> None:
    loads(dumped(mutated(CONTENT[TEST], changes)), DEFAULT)


@FUZZ(max_examples=200)
@given(edits(YAML))
def test_damaged_yaml(changes: Edits) -> None:
    loads(edited(TEST.read_bytes(), changes))  # alone, keys are missing at best


# ----------------------------------------------------------------------------------- prompts
class Silent:
    """A scorer that finds nothing toxic."""

    name, version = "silent", "1"

    def score(self, prompts: list[str], responses: list[str]) -> np.ndarray:
        return np.zeros(len(responses))


@pytest.fixture(scope="module")
def silent() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prompts_module, "load_scorer", lambda name: Silent())
        yield


ROWS = [{"text": "A day that", "toxicity": 0.1}, {"text": "Once upon", "toxicity": None}]
TABLE = pa.Table.from_pylist(ROWS)


def parquet(table: pa.Table, **how: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **how)
    return bytes(sink.getvalue())


WRITTEN = {
    "lines": b"A day that\n\nOnce upon\n",
    "jsonl": "\n".join(map(json.dumps, ROWS)).encode(),
    "csv": b'text,toxicity\n"A day, that",0.1\nOnce upon,\n',
    "parquet": parquet(TABLE),
}
LINES = (b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\n", b"\r", b'"', b",", b"{", b"[" * 9999, b"NaN",
         b"1e999", b"9" * 5000, b'{"text": 5}', b'{"text": "\\ud800"}', b"a" * 200_000)  # fmt: skip


def reads(kind: str, content: bytes) -> bool:
    fields = {} if kind == "lines" else {"text": "text"}
    if kind in ("jsonl", "parquet"):
        fields["toxicity"] = "toxicity"
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder) / "fuzzed", Path(folder) / "out"
        file.write_bytes(content)
        source = {"name": "a", "local": str(file), "format": kind, "licence": "none"} | fields
        about = {"scorer": "x", "toxic_from": 0.5, "seed": 0, "splits": {}}
        config = Prompts.model_validate({"sources": [source], **about})
        whole = ends_well(lambda: fetch_prompts("x", config, out), "prompts.x")
        left = {made.name for made in Path(folder).iterdir()}
        assert left == ({"fuzzed", "out"} if whole else {"fuzzed"})
        return whole


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("kind", WRITTEN)
def test_damaged_prompts(kind: str) -> None:
    assert reads(kind, WRITTEN[kind])

    @FUZZ(max_examples=120)
    @given(edits(LINES))
    @example([(0, ALL, b"[" * 9999)])
    @example([(10_000, 2, b".\xdf\xe6[")])
    def damaged(changes: Edits) -> None:
        reads(kind, edited(WRITTEN[kind], changes))

    damaged()


# --------------------------------------------------------------------------------- artefacts
SCHEMAS = {name: schema for name, schema in vars(schemas).items() if isinstance(schema, pa.Schema)}
VALUES = {
    pa.string(): "text",
    pa.float64(): 0.5,
    pa.int32(): 1,
    pa.bool_(): True,
    pa.list_(pa.int32()): [1, 2, 3],
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_damaged_tables(name: str, tmp_path: Path) -> None:
    schema, file = SCHEMAS[name], tmp_path / "fuzzed.parquet"
    schemas.write(file, schema, {f.name: 30 * [VALUES[f.type]] for f in schema}, {"made": "so"})
    content = file.read_bytes()

    def read() -> None:
        schemas.read(file, schema).to_pylist()
        schemas.about(file)

    assert ends_well(read)

    @FUZZ(max_examples=50)
    @given(edits())
    @example([(10_000, 2, b".\xdf\xe6[")])
    def damaged(changes: Edits) -> None:
        file.write_bytes(edited(content, changes))
        ends_well(read, "fuzzed.parquet")

    damaged()


JSON = (b"[" * 9999, b"{", b"}", b"null", b"9" * 5000, b"NaN", b'"', b"\\ud800", b"\xff", b"\x00")


@FUZZ(max_examples=150)
@given(edits(JSON))
@example([(0, ALL, b"[" * 9999)])
@example([(0, ALL, b"[]")])
@example([(0, ALL, b'{"sha256": 5}')])
def test_damaged_json(changes: Edits) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file, manifest = Path(folder) / "file", Path(folder) / "fuzzed.json"
        file.write_text("content")
        files.write_json(manifest, {"rows": 3, "sha256": files.sums(file)})
        manifest.write_bytes(edited(manifest.read_bytes(), changes))
        ends_well(lambda: files.verify(file, manifest), "fuzzed.json")


def test_damaged_checkpoints(policy: Policy, tmp_path: Path) -> None:
    model, out = write_model(policy.lm, tmp_path / "model"), tmp_path / "fuzzed"
    policy.lm.requires_grad_(False)
    moments = {"reward_tokens": {"exp_avg": torch.ones(3), "exp_avg_sq": torch.ones(3)}}
    checkpoint.save(out, policy, moments, form=EMBEDDING, step=1, iteration=0, model=model)
    # as older code wrote it: what is damaged is not seen by its checksum
    about = json.loads((out / "checkpoint.json").read_text())
    del about["sha256"]
    (out / "checkpoint.json").write_text(json.dumps(about, indent=2))
    contents = {file: file.read_bytes() for file in out.iterdir()}

    def read() -> None:
        checkpoint.load_policy(model, out, "fp32")
        checkpoint.load_moments(out)

    assert ends_well(read)

    @FUZZ(max_examples=60)
    @given(st.sampled_from(sorted(contents)), edits(JSON))
    @example(out / "checkpoint.json", [(0, ALL, b"{}")])
    @example(out / "optimizer.safetensors", [(500_000, ALL, b"")])
    def damaged(file: Path, changes: Edits) -> None:
        for other, content in contents.items():
            other.write_bytes(edited(content, changes) if other == file else content)
        ends_well(read, "fuzzed")

    damaged()
