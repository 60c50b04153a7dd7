"""tox-block's weights and vocabulary, taken out of its package without Keras.

The package holds the weights as an HDF5 file and the vocabulary as a pickle. Both have
limited readers here: for the parts of HDF5 that the file uses, and for a pickle of plain data only.
"""

import pickle
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark.config import Source
from quark.core.files import sha256, whole, write_json
from quark.data.fetch import ResourceError
from quark.scorers.tox_block import FILTERS, FORMAT, LENGTH, RANGES

TOKENIZER = {
    "filters": FILTERS,
    "lower": True,
    "split": " ",
    "char_level": False,
    "oov_token": None,
}
"""The settings of the tokenizer that the scorer assumes."""
PLAIN = {
    "tox_block.data_processing.preprocessors.TokenSequencer": SimpleNamespace,
    "keras_preprocessing.text.Tokenizer": SimpleNamespace,
    "collections.OrderedDict": dict,
    "collections.defaultdict": lambda kind: {},
    "builtins.int": int,
}
"""The names that the pickle may contain, and their replacements."""
FLOAT32 = bytes.fromhex("11201f000400000000002000170800177f000000")
"""A datatype message: little-endian IEEE 754 numbers of four bytes."""


def convert(name: str, source: Source, files: list[Path], out: Path) -> None:
    """Write the directory `out`: model.safetensors, vocabulary.json, manifest.json.

    Args:
        name: in the configuration.
        source: where the files come from; the package's hash has been checked.
        files: of the package, among them one .h5 file and one encoder_*.pkl.
        out: the directory.

    Raises:
        ResourceError: a file is missing, or is not one of tox-block's.
    """
    from safetensors.numpy import save_file

    weights = [file for file in files if file.suffix == ".h5"]
    encoders = [file for file in files if file.match("encoder_*.pkl")]
    if len(weights) != 1 or len(encoders) != 1:
        raise ResourceError(
            f"classifiers.{name}.package.member: one .h5 file and one encoder_*.pkl are needed, "
            f"not {', '.join(file.name for file in files)}"
        )
    with whole(out) as made:
        made.mkdir()
        save_file(read_weights(weights[0]), made / "model.safetensors")
        write_json(made / "vocabulary.json", read_vocabulary(encoders[0]))
        manifest = {
            "name": name,
            "format": FORMAT,
            "source": source.model_dump(mode="json", exclude_none=True),
            "licence": source.licence,
            "sha256": sha256(made / "model.safetensors"),
            "labels": list(RANGES),
        }
        write_json(made / "manifest.json", manifest)


class _Plain(pickle.Unpickler):
    """A reader of pickles that refuses names outside `PLAIN`, so that no other code can run."""

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in PLAIN:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return PLAIN[f"{module}.{name}"]


def read_vocabulary(file: Path) -> dict[str, int]:
    """The numbers of the words that the model knows, from 1 on.

    Raises:
        ResourceError: the pickle names something that is not plain data, or its tokenizer differs
            from the scorer's.
    """
    try:
        with file.open("rb") as content:
            encoder = _Plain(content).load()
    except pickle.UnpicklingError as error:
        raise ResourceError(f"{file.name}: refused: {error}") from None
    tokenizer, length = encoder.tokenizer, encoder.max_sequence_length
    settings = {key: getattr(tokenizer, key) for key in TOKENIZER}
    if settings != TOKENIZER or length != LENGTH:
        raise ResourceError(f"{file.name}: another tokenizer: {settings}, {length} words")
    return {word: i for word, i in tokenizer.word_index.items() if i < tokenizer.num_words}


def read_weights(file: Path) -> dict[str, NDArray[np.float32]]:
    """Keras' weights by the last two parts of their names, e.g. "dense/kernel"."""
    found = read_hdf5(file.read_bytes(), file.name)
    return {
        "/".join(path.split("/")[-2:]).removesuffix(":0"): weights
        for path, weights in found.items()
        if path.startswith("/model_weights/")
    }


# The numbers below are those of the HDF5 File Format Specification, version 2.0: superblock 0,
# object headers of version 1, groups as symbol tables, contiguous data.
DATASPACE, DATATYPE, LAYOUT, CONTINUATION, GROUP = 0x1, 0x3, 0x8, 0x10, 0x11


def read_hdf5(data: bytes, name: str) -> dict[str, NDArray[np.float32]]:
    """The float32 arrays of an HDF5 file by their paths; arrays of another type are left out.

    Raises:
        ResourceError: the file has a layout that is not supported here.
    """
    if data[:9] != b"\x89HDF\r\n\x1a\n\0" or data[13:15] != b"\x08\x08":
        raise ResourceError(f"{name}: not an HDF5 file with superblock 0 and 8-byte addresses")
    root = _number(data, 64)
    return dict(_arrays(data, name, root, ""))


def _arrays(
    data: bytes, name: str, at: int, path: str
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The arrays at and below the object whose header is at `at`."""
    if data[at] != 1:
        raise ResourceError(f"{name}: {path}: object header of version {data[at]}, not 1")
    messages = dict(_messages(data, at))
    if GROUP in messages:
        tree, heap = (_number(data, messages[GROUP] + 8 * i) for i in range(2))
        for child, header in _children(data, tree, _number(data, heap + 24)):
            yield from _arrays(data, name, header, f"{path}/{child}")
        return
    space, kind, layout = (messages[message] for message in (DATASPACE, DATATYPE, LAYOUT))
    if data[layout : layout + 2] != b"\x03\x01":
        raise ResourceError(f"{name}: {path}: its data are not contiguous")
    if data[kind : kind + len(FLOAT32)] == FLOAT32:
        shape = [_number(data, space + 8 + 8 * i) for i in range(data[space + 1])]
        count, start = int(np.prod(shape)), _number(data, layout + 2)
        yield path, np.frombuffer(data, "<f4", count, start).reshape(shape)


def _messages(data: bytes, at: int) -> Iterator[tuple[int, int]]:
    """Kind and place of each message of the object header at `at`."""
    blocks = [(at + 16, _number(data, at + 8, 4))]
    for start, size in blocks:  # grows during the loop
        place = start
        while place < start + size:
            kind, length = _number(data, place, 2), _number(data, place + 2, 2)
            place += 8
            yield kind, place
            if kind == CONTINUATION:
                blocks.append((_number(data, place), _number(data, place + 8)))
            place += length


def _children(data: bytes, at: int, names: int) -> Iterator[tuple[str, int]]:
    """Name and object header of each member of a group, from the node of its tree at `at`."""
    if data[at : at + 4] == b"TREE":
        for i in range(_number(data, at + 6, 2)):
            yield from _children(data, _number(data, at + 32 + 16 * i), names)
        return
    for i in range(_number(data, at + 6, 2)):  # a symbol node
        entry = at + 8 + 40 * i
        start = names + _number(data, entry)
        yield data[start : data.index(0, start)].decode(), _number(data, entry + 8)


def _number(data: bytes, at: int, size: int = 8) -> int:
    """The little-endian whole number of `size` bytes at `at`."""
    return int.from_bytes(data[at : at + size], "little")
