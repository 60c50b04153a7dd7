"""config/README.md names every key of the configuration, and the defaults of config.yaml."""

import re
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin

import yaml

from quark.config import Config, Finetuning, Section, load

CONFIG = Path(__file__).parents[2] / "config"
README = (CONFIG / "README.md").read_text()
ROWS = {  # key: the other cells of its row
    cells[0].strip("`"): cells[1:]
    for line in README.splitlines()
    if line.startswith("| `")
    for cells in [re.split(r" +\| +", line.strip("| "))]
}


def keys(model: type[Section], above: str = "") -> Iterator[str]:
    """The keys of a model as the tables write them: NAME, TASK, SPLIT for chosen names."""
    for name, field in model.model_fields.items():
        yield from _keys(field.annotation, f"{above}{name}")


def _keys(kind: Any, key: str) -> Iterator[str]:
    inner = [part for part in get_args(kind) if part not in (NoneType, Ellipsis)]
    if isinstance(kind, type) and issubclass(kind, Section):
        yield from keys(kind, f"{key}.")
    elif get_origin(kind) is dict:
        names = {"tasks": "TASK", "splits": "SPLIT", "override": "SECTION", "SECTION": "KEY"}
        names |= {"variants": "VARIANT", "VARIANT": "SECTION", "tuning": "TASK"}
        names |= {"tries": "SECTION", "plugins": "METHOD", "METHOD": "KEY"}
        chosen = names.get(key.split(".")[-1], "NAME")
        yield from _keys(inner[1], f"{key}.{chosen}")
    elif get_origin(kind) is tuple and _is_section(inner[0]):
        yield from _keys(inner[0], f"{key}[]")
    elif len(inner) == 1 and _is_section(inner[0]):  # section | None
        yield from _keys(inner[0], key)
    else:
        yield key


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def test_every_key_has_a_row_and_every_row_a_key() -> None:
    # A prompt source inherits `random` from its model, but may not have it: one row says so.
    random = "prompts.NAME.sources[].random"
    never = (random, "classifiers.NAME.random")  # as a classifier does
    wanted = {key for key in keys(Config) if not key.startswith(tuple(f"{k}." for k in never))}
    wanted |= set(never)
    optimised = re.compile(
        r"(baselines\.(dapt|dexperts\.training|gedi\.training|ppo)|models\.NAME\.finetuned\.training)\."
        rf"({'|'.join(Finetuning.model_fields)})$"
    )
    wanted = {optimised.sub(r"baselines.M.\3", key) for key in wanted}  # one table for all
    assert not wanted - set(ROWS), "config/README.md lacks a row for these keys"
    assert not set(ROWS) - wanted, "config/README.md has rows for keys that do not exist"


def test_the_defaults_are_those_of_config_yaml() -> None:
    default = load([CONFIG / "config.yaml"]).model_dump(mode="json")
    for key, cells in ROWS.items():
        key = key.replace("evaluation.decoding.NAME", "evaluation.decoding.nucleus")
        if key.split(".")[0] not in ("seeds", "precision", "quark", "evaluation"):
            continue  # these stand under names that a user chooses
        value: Any = default
        for part in key.split("."):
            value = None if value is None else value[part]  # of a section that is null
        stated = yaml.safe_load(cells[1].strip("`"))
        assert stated == value, f"config/README.md: {key}: write `{value}`, the default"
