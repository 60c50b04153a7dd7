"""Taking tox-block's model out of its files: nothing runs, and every number arrives."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_files import hdf5, pickled, weights

from quark.data import ResourceError
from quark.data.tox_block import read_hdf5, read_vocabulary, read_weights


def test_arrays_by_path() -> None:
    one, two = np.arange(6, dtype="<f4").reshape(2, 3), np.array([0.5], "<f4")
    found = read_hdf5(hdf5({"b": {"c:0": one, "whole": np.array(3, "<i8")}, "a": two}), "x.h5")
    assert list(found) == ["/a", "/b/c:0"]
    np.testing.assert_array_equal(found["/b/c:0"], one)
    np.testing.assert_array_equal(found["/a"], two)


def test_keras_names_are_shortened(tmp_path: Path) -> None:
    made = weights(5)
    (tmp_path / "x.h5").write_bytes(hdf5(made))
    found = read_weights(tmp_path / "x.h5")
    lstm = made["model_weights"]["bidirectional"]["bidirectional"]["backward_lstm"]
    np.testing.assert_array_equal(found["backward_lstm/kernel"], lstm["kernel:0"])
    assert len(found) == 1 + 2 * 3 + 2 * 2 and not any("iterations" in name for name in found)


def test_other_files_are_refused() -> None:
    with pytest.raises(ResourceError, match=r"x\.h5: not an HDF5 file with superblock 0"):
        read_hdf5(b"\x89HDF\r\n\x1a\n\2" + bytes(100), "x.h5")
    content = bytearray(hdf5({"a": np.ones(1, "<f4")}))
    content[content.index(b"\x03\x01", 96 + 4)] = 4  # the version of the layout
    with pytest.raises(ResourceError, match=r"x\.h5: /a: its data are not contiguous"):
        read_hdf5(bytes(content), "x.h5")


def test_the_vocabulary_ends_with_the_last_word_that_has_a_vector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pickled(tmp_path / "encoder_1.pkl", monkeypatch)
    found = read_vocabulary(tmp_path / "encoder_1.pkl")
    assert found == {"the": 1, "good": 2, "bad": 3, "you're": 4}


@pytest.mark.parametrize("changed", [{"lower": False}, {"filters": "!"}, {"oov_token": "?"}])
def test_another_tokenizer_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    pickled(tmp_path / "encoder_1.pkl", monkeypatch, **changed)
    with pytest.raises(ResourceError, match=r"encoder_1\.pkl: another tokenizer: .*100 words"):
        read_vocabulary(tmp_path / "encoder_1.pkl")


class Evil:
    """Makes a directory where it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = str(proof)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.proof,)


def test_a_pickle_that_would_run_something_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proof, file = tmp_path / "proof", tmp_path / "encoder_1.pkl"
    pickle.loads(pickle.dumps(Evil(proof)))
    assert proof.exists(), "an ordinary reader runs it"
    proof.rmdir()
    pickled(file, monkeypatch, word_counts=Evil(proof))
    with pytest.raises(ResourceError, match=r"encoder_1\.pkl: refused: it names posix\.mkdir"):
        read_vocabulary(file)
    assert not proof.exists()
