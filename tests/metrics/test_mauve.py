"""MAUVE: what surrounds the package, and the package itself where it is installed."""

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from quark.config import Mauve
from quark.metrics.mauve import MauveError, mauve

HOW = Mauve(model="m", tokens=8, buckets=None, scaling=5, seed=25)


def test_what_the_package_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def compute_mauve(**keys: Any) -> SimpleNamespace:
        given.update(keys)
        return SimpleNamespace(mauve=np.float64(0.5))

    monkeypatch.setitem(sys.modules, "mauve", SimpleNamespace(compute_mauve=compute_mauve))
    real, written = np.zeros((60, 3), np.float32), np.ones((40, 3), np.float32)
    assert mauve(real, written, HOW) == 0.5
    assert given["p_features"] is real and given["q_features"] is written
    assert given["num_buckets"] == 4 and given["mauve_scaling_factor"] == 5 and given["seed"] == 25
    assert mauve(real, written, HOW.model_copy(update={"buckets": 7})) == 0.5
    assert given["num_buckets"] == 7
    with pytest.raises(MauveError, match=r"1 texts cannot fill .* = 2"):
        mauve(real[:1], written, HOW)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mauve", None)
    with pytest.raises(MauveError, match="needs the package mauve-text"):
        mauve(np.zeros((9, 3), np.float32), np.zeros((9, 3), np.float32), HOW)


def test_near_sets_are_nearer_than_far_ones() -> None:
    pytest.importorskip("mauve", reason="the extra is not installed")
    rng = np.random.default_rng(0)
    real, near, far = (
        rng.normal(shift, 1, (200, 8)).astype(np.float32) * np.linspace(1, 3, 8, dtype=np.float32)
        for shift in (0, 0, 4)
    )
    assert mauve(real, real, HOW) == pytest.approx(1, abs=1e-3)
    assert mauve(real, near, HOW) > 0.8 > 0.2 > mauve(real, far, HOW)
