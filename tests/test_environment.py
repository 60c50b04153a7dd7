"""The lists of packages agree: pyproject.toml, the two locks with their hashes, environment.yml."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(lines: list[str], file: str) -> dict[str, Version]:
    """Version by canonical package name; each line is `name==version`, perhaps with a marker."""
    found: dict[str, Version] = {}
    for line in lines:
        wanted = Requirement(line)
        exact = [one for one in wanted.specifier if one.operator == "=="]
        assert len(exact) == 1 == len(wanted.specifier), f"{file}: {line}: write name==version"
        name, version = canonicalize_name(wanted.name), Version(exact[0].version)
        assert not version.local, f"{file}: {line}: leave out +{version.local}, one build's tag"
        assert name not in found, f"{file}: {name} stands there twice"
        found[name] = version
    return found


def entries(file: str) -> list[list[str]]:
    """Each requirement of a lock, with the SHA-256 sums that follow it."""
    lines = (ROOT / file).read_text().replace(" \\\n    --hash=sha256:", "\t").splitlines()
    return [line.split("\t") for line in lines if line and line[0] != "#"]


def locked(file: str = "requirements.lock") -> dict[str, Version]:
    return pins([wanted for wanted, *_ in entries(file)], file)


def conda() -> tuple[str, dict[str, Version]]:
    """Python's version and the pip section of environment.yml."""
    python, pip, section = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert pip == "pip", "environment.yml: expected python, pip and the pip section"
    return python.removeprefix("python="), pins(section["pip"], "environment.yml")


def test_the_lock_satisfies_pyproject() -> None:
    lock = locked()
    for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]:
        wanted = Requirement(line)
        pinned = lock.get(canonicalize_name(wanted.name))
        assert pinned, f"requirements.lock does not pin {wanted.name} of pyproject.toml"
        assert pinned in wanted.specifier, (
            f"requirements.lock pins {wanted.name} {pinned}, pyproject.toml wants {line}"
        )


@pytest.mark.parametrize("file", ["requirements.lock", "torch-cpu.lock"])
def test_a_lock_has_the_hashes_of_every_package(file: str) -> None:
    assert list(locked(file)) == sorted(locked(file))
    for wanted, *sums in entries(file):
        assert sums, f"{file}: {wanted} has no hash"
        assert sums == sorted(set(sums)), f"{file}: sort the hashes of {wanted}, each once"
        assert all(re.fullmatch("[0-9a-f]{64}", one) for one in sums), f"{file}: {wanted}"


def test_the_cpu_build_is_the_locked_torch() -> None:
    assert locked("torch-cpu.lock") == {"torch": locked()["torch"]}


def test_the_conda_environment_has_the_locked_versions() -> None:
    lock, (python, pinned) = locked(), conda()
    differ = {
        name: f"environment.yml {version}, requirements.lock {lock.get(name)}"
        for name, version in pinned.items()
        if lock.get(name) != version
    }
    assert not differ
    wanted = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    assert set(pinned) == wanted, "environment.yml lists other packages than pyproject.toml"
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(python)


def test_the_rules_use_the_same_conda_environment() -> None:
    ours, theirs = ROOT / "environment.yml", ROOT / "workflow/envs/quark.yaml"
    assert ours.read_text() == theirs.read_text(), f"copy {ours.name} to {theirs}"
