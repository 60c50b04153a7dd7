"""Names that other packages add, and what is said where they cannot be used."""

from pathlib import Path

import pytest

from quark.config import ConfigError, Plugins, registry

MODULE = "NUMBER = 3\nWORD = 'three'\n"


def numbers(folder: Path, points: str, monkeypatch: pytest.MonkeyPatch) -> Plugins[int]:
    """Numbers, with those of a package that has these entry points."""
    about = folder / "other-1.0.dist-info"
    about.mkdir()
    (folder / "other_numbers.py").write_text(MODULE)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[test.numbers]\n{points}\n")
    monkeypatch.syspath_prepend(folder)
    return Plugins("test.numbers", {"one": 1, "two": "pkgutil:__doc__"}, int)


def test_another_package_adds_a_thing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = numbers(tmp_path, "three = other_numbers:NUMBER", monkeypatch)
    assert list(found) == ["one", "two", "three"] and len(found) == 3
    assert (found["one"], found["three"]) == (1, 3)
    assert found.known("three") == "three"
    with pytest.raises(ValueError, match=r"'tree' is none of the numbers: .* did you mean three"):
        found.known("tree")
    with pytest.raises(KeyError):
        found["tree"]


def test_a_name_loads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = numbers(tmp_path, "four = no_such_module:FOUR", monkeypatch)
    assert "four" in found
    said = r"entry point four = no_such_module:FOUR in group test.numbers cannot be loaded"
    with pytest.raises(ConfigError, match=rf"{said}: ModuleNotFoundError"):
        found["four"]


@pytest.mark.parametrize(
    "points, said",
    [
        ("one = other_numbers:NUMBER", "this name is taken"),
        ("word = other_numbers:WORD", "is no int"),
        ("gone = other_numbers:GONE", "AttributeError"),
    ],
)
def test_what_cannot_be_used_is_named(
    points: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = numbers(tmp_path, points, monkeypatch)
    with pytest.raises(ConfigError, match=f"entry point {points} in group test.numbers.*{said}"):
        found[points.split(" ")[0]]


def test_parts_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second would be fitted in place of the first."""
    twin = registry.MethodSpec("Twin", parts={"map": registry.Part("twin:fit")})
    monkeypatch.setitem(registry.METHODS.entries, "twin", twin)
    with pytest.raises(ConfigError, match="twin: another method has a part map, too; rename one"):
        registry.parts()
