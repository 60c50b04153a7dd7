"""`precision: auto`: which class of processor gets what, and what a directory of results keeps."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from quark.config import ConfigError, load, precision, resolved
from quark.config.precision import Machine, begin, choose
from quark.stages import derive

ROOT = Path(__file__).parents[2]
FAST = {"bf16": 400.0, "fp32": 100.0}
SLOW = {"bf16": 5.0, "fp32": 100.0}
AMX = Machine(processor="AMX", native=True, measured=FAST)
AVX2 = Machine(processor="AVX2", native=False, measured=SLOW)


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch):
    """A function that puts the test on some machine; None: it must not be looked at."""

    def put(machine: Machine | None) -> None:
        monkeypatch.setattr(precision, "look", lambda: machine or pytest.fail("looked"))

    return put


def written(results: Path) -> dict:
    return json.loads((results / "precision.json").read_text())


@pytest.mark.parametrize(
    ("has", "expected"),
    [
        ({"avx2": True, "avx512_f": True, "avx512_bf16": True, "amx_bf16": True}, ("AMX", True)),
        ({"avx2": True, "avx512_f": True, "avx512_bf16": True}, ("AVX512-bf16", True)),
        ({"avx2": True, "avx512_f": True, "amx_bf16": False}, ("AVX512", False)),
        ({"avx2": True}, ("AVX2", False)),
        ({"architecture": "aarch64", "bf16": True}, ("Arm bf16", True)),
        ({"architecture": "aarch64", "neon": True}, ("aarch64", False)),
        ({}, ("unknown", False)),
    ],
)
def test_the_class_of_a_processor(has: dict, expected: tuple[str, bool]) -> None:
    assert precision._processor_class(has) == expected


@pytest.mark.parametrize(
    ("native", "measured", "expected"),
    [
        (True, FAST, "bf16"),
        (True, SLOW, "fp32"),  # its oneDNN is limited to other instructions
        (True, {"bf16": 101.0, "fp32": 100.0}, "fp32"),  # no more than noise
        (False, SLOW, "fp32"),
        (False, FAST, "fp32"),
    ],
)
def test_auto_needs_instructions_and_speed(native: bool, measured: dict, expected: str) -> None:
    assert Machine(processor="AMX", native=native, measured=measured).precision == expected


def test_a_run_decides_once(on, tmp_path: Path) -> None:
    on(AMX)
    choice = choose("auto", tmp_path)
    assert choice.precision == "bf16" and not list(tmp_path.iterdir())
    on(None)  # once is enough
    assert begin(choice, "auto", tmp_path, here=True) == [
        "precision: auto is bf16 (AMX, bf16 400 GFLOP/s, fp32 100 GFLOP/s)"
    ]
    expected = {"precision": "bf16", "asked": "auto", "processor": "AMX", "measured": FAST}
    assert written(tmp_path) == expected
    assert choose("auto", tmp_path, may_look=False) == choice


@pytest.mark.parametrize(("first", "then"), [(AMX, AVX2), (AVX2, AMX)])
def test_a_run_that_goes_on_elsewhere_keeps_its_precision(
    on, tmp_path: Path, first: Machine, then: Machine
) -> None:
    on(first)
    begin(choose("auto", tmp_path), "auto", tmp_path, here=True)
    before = written(tmp_path)
    on(then)
    choice = choose("auto", tmp_path)
    said = begin(choice, "auto", tmp_path, here=True)
    assert choice.precision == first.precision and written(tmp_path) == before
    assert f"chosen on {first.processor}; this machine is {then.processor}" in said[0]
    assert "delete the file" in said[0]
    assert len(said) == (2 if first is AMX else 1)  # and bf16 is slow here
    on(first)
    assert begin(choice, "auto", tmp_path, here=True) == []


def test_an_explicit_precision_is_kept_for_a_later_auto(on, tmp_path: Path) -> None:
    on(AMX)
    begin(choose("auto", tmp_path), "auto", tmp_path, here=True)
    on(None)
    assert begin(choose("fp32", tmp_path), "fp32", tmp_path, here=True) == []
    assert written(tmp_path)["precision"] == "fp32" == choose("auto", tmp_path).precision


def test_slow_bf16_is_named(on, tmp_path: Path) -> None:
    on(AVX2)
    (said,) = begin(choose("bf16", tmp_path), "bf16", tmp_path, here=True)
    assert "bf16 5 GFLOP/s, fp32 100 GFLOP/s" in said and "`precision: auto`" in said
    assert written(tmp_path) | {"measured": {}} == {
        "precision": "bf16",
        "asked": "bf16",
        "processor": "AVX2",
        "measured": {},
    }
    on(AMX)
    assert begin(choose("bf16", tmp_path), "bf16", tmp_path, here=True) == []


def test_on_a_cluster_this_machine_does_not_count(on, tmp_path: Path) -> None:
    on(None)
    choice = choose("auto", tmp_path, auto="bf16")
    assert choice.precision == "bf16"
    assert len(begin(choice, "auto", tmp_path, here=False)) == 1
    assert begin(choice, "auto", tmp_path, here=False) == []
    assert begin(choose("bf16", tmp_path), "bf16", tmp_path, here=False) == []


def test_a_job_does_not_decide(on, tmp_path: Path) -> None:
    on(None)
    with pytest.raises(ConfigError, match=r"precision\.json: no such file"):
        choose("auto", tmp_path, may_look=False)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "precision.json").write_text('{"precision": "auto"}')
    with pytest.raises(ConfigError, match=r"precision\.json: damaged; delete it"):
        choose("auto", tmp_path)


def test_settings_never_say_auto() -> None:
    config = load([ROOT / "config/config.yaml"])
    assert config.precision == "auto"
    with pytest.raises(ValidationError):
        derive.judge(config)  # type: ignore[arg-type]
    assert derive.judge(resolved(config, "fp32")).precision == "fp32"


def test_a_limited_processor_resolves_to_fp32() -> None:
    """This very machine, whatever it is, without the instructions for bf16 that it may have."""
    limits = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    environment = {**os.environ, **limits, "CUDA_VISIBLE_DEVICES": ""}
    if os.uname().machine != "x86_64":
        pytest.skip("the limits are those of x86-64")
    command = [sys.executable, "-m", "quark.config.precision"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    machine = Machine.model_validate_json(found.stdout)
    assert machine.measured["bf16"] < machine.measured["fp32"] and machine.precision == "fp32"
