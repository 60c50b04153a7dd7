"""Keras files made by hand, so that no test needs Keras or h5py: an HDF5 file and a pickle."""

import pickle
import struct
import sys
from collections import OrderedDict, defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

NOWHERE = 2**64 - 1  # an address that is not set
Tree = dict[str, Any]  # a group: names to groups or arrays


class Writer:
    """An HDF5 file with superblock 0: groups as symbol tables, arrays in one piece."""

    def __init__(self) -> None:
        self.data = bytearray(96)  # the superblock

    def put(self, content: bytes) -> int:
        """Append at a multiple of 8; return the address."""
        self.data += bytes(-len(self.data) % 8)
        at = len(self.data)
        self.data += content
        return at

    def header(self, *messages: tuple[int, bytes]) -> int:
        """An object header of version 1, its last message in a continuation block."""
        *first, (last, body) = messages
        tail = struct.pack("<HHB3x", last, len(body), 0) + body
        there = struct.pack("<QQ", self.put(tail), len(tail))
        parts = b"".join(
            struct.pack("<HHB3x", kind, len(body), 0) + body
            for kind, body in [*first, (0x10, there)]
        )
        return self.put(struct.pack("<BxHII4x", 1, len(messages) + 1, 1, len(parts)) + parts)

    def array(self, values: np.ndarray) -> int:
        shape = struct.pack("<BBBx4x", 1, values.ndim, 0) + struct.pack(
            f"<{values.ndim}Q", *values.shape
        )
        kind = {
            "f": "11201f000400000000002000170800177f000000",
            "i": "10080000080000000000400000000000",
        }[values.dtype.kind]
        start = self.put(values.tobytes())
        layout = struct.pack("<BBQQ6x", 3, 1, start, values.nbytes)
        return self.header((0x1, shape), (0x3, bytes.fromhex(kind)), (0x8, layout))

    def group(self, members: Tree) -> int:
        names, entries = b"\0" * 8, b""
        for name, member in sorted(members.items()):
            at = self.group(member) if isinstance(member, dict) else self.array(member)
            entries += struct.pack("<QQ24x", len(names), at)
            names += name.encode() + b"\0" * (8 - len(name) % 8)
        heap = self.put(b"HEAP" + struct.pack("<B3xQQQ", 0, len(names), NOWHERE, self.put(names)))
        node = self.put(b"SNOD" + struct.pack("<BxH", 1, len(members)) + entries)
        keys = struct.pack("<QQQ", 0, node, 0)
        tree = self.put(b"TREE" + struct.pack("<BBHQQ", 0, 0, 1, NOWHERE, NOWHERE) + keys)
        return self.header((0x0, b""), (0x11, struct.pack("<QQ", tree, heap)))


def hdf5(members: Tree) -> bytes:
    """The bytes of a file."""
    writer = Writer()
    root = writer.group(members)
    begin = b"\x89HDF\r\n\x1a\n" + bytes(5) + b"\x08\x08\0" + struct.pack("<HHI", 4, 16, 0)
    begin += struct.pack("<QQQQQQ", 0, NOWHERE, len(writer.data), NOWHERE, 0, root)
    writer.data[: len(begin)] = begin
    return bytes(writer.data)


def weights(words: int, width: int = 3, units: int = 2) -> Tree:
    """Random weights of tox-block's shape, and a counter that is none of them."""
    rng = np.random.default_rng(1)

    def made(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype("<f4")

    def layer(inputs: int, outputs: int) -> Tree:
        return {"kernel:0": made(inputs, outputs), "bias:0": made(outputs)}

    lstm = {
        f"{way}_lstm": layer(width, 4 * units) | {"recurrent_kernel:0": made(units, 4 * units)}
        for way in ("forward", "backward")
    }
    model = {
        "embedding": {"embedding": {"embeddings:0": made(words, width)}},
        "bidirectional": {"bidirectional": lstm},
        "dense": {"dense": layer(2 * units, 4)},
        "dense_1": {"dense_1": layer(4, 6)},
    }
    return {"model_weights": model, "optimizer_weights": {"iterations:0": np.array(7, "<i8")}}


def pickled(file: Path, patch: pytest.MonkeyPatch, **changed: Any) -> None:
    """Write what Keras' tokenizer is pickled as; `changed` are its attributes."""
    word_index = {"the": 1, "good": 2, "bad": 3, "you're": 4, "rare": 5}
    settings = {
        "word_index": word_index,
        "word_counts": OrderedDict(word_index),
        "word_docs": defaultdict(int, word_index),
        "num_words": 5,
        "filters": '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n',
        "lower": True,
        "split": " ",
        "char_level": False,
        "oov_token": None,
    }
    tokenizer = _stand_in(patch, "keras_preprocessing.text", "Tokenizer")
    tokenizer.__dict__.update(settings | changed)
    encoder = _stand_in(patch, "tox_block.data_processing.preprocessors", "TokenSequencer")
    encoder.__dict__.update(max_features=5, max_sequence_length=100, tokenizer=tokenizer)
    file.write_bytes(pickle.dumps(encoder, protocol=3))


def _stand_in(patch: pytest.MonkeyPatch, module: str, name: str) -> Any:
    """An object of a class that can be pickled by the name of a package that is not installed."""
    kind = type(name, (), {"__module__": module})
    for i in range(module.count(".") + 1):
        patch.setitem(sys.modules, module.rsplit(".", i)[0], ModuleType(module))
    patch.setattr(sys.modules[module], name, kind, raising=False)
    return kind()
