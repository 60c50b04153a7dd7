"""From YAML files to the checked configuration, with errors that say what to do."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin

from pydantic import ValidationError

from quark.config.experiment import TaskName
from quark.config.parsing import ConfigError, read, typed
from quark.config.registry import sampled_for
from quark.config.types import Precision, Section, nearest
from quark.config.whole import Config, WrittenConfig

C = TypeVar("C", bound=WrittenConfig)


Layers = Sequence[tuple[str, Mapping[str, Any]]]
"""Each file's name and content; later files are laid over earlier ones."""


def load(files: Sequence[Path | str], over: Mapping[str, Any] | None = None) -> WrittenConfig:
    """Read YAML files, lay each over those before it, and check the whole.

    Args:
        files: later ones are laid over earlier ones.
        over: the values of Snakemake's `--config`, laid over all files.

    Raises:
        ConfigError: a file is missing or no mapping, a key is unknown or occurs twice, or a value
            is invalid.
    """
    layers = [(str(file), read(Path(file))) for file in files]
    layers.append(("--config", typed(over or {})))
    merged: dict[str, Any] = {}
    for _, raw in layers:
        merged = overlay(merged, raw)
    return check(merged, layers)


def check(raw: Mapping[str, Any], layers: Layers = ()) -> WrittenConfig:
    """Validate a merged configuration; `layers` are used only to name the file of a bad key.

    Raises:
        ConfigError: one line for each fault.
    """
    try:
        config = WrittenConfig.model_validate(raw)
    except ValidationError as error:
        raise _cannot_be_run(error, layers) from None
    parts: list[tuple[tuple[str, ...], Callable[[], WrittenConfig]]] = [
        (("tasks", task, "override"), partial(for_task, config, task)) for task in config.tasks
    ]
    parts += [
        (under, partial(for_variant, config, task, name, changes))
        for under, task, name, changes in _variants(config)
    ]
    for under, make in parts:
        try:
            make()
        except ValidationError as error:
            raise _cannot_be_run(error, layers, under) from None
    return config


def resolved(config: WrittenConfig, precision: Precision) -> Config:
    """The configuration with its precision decided."""
    raw = config.model_dump(exclude_unset=True) | {"precision": precision}
    return Config.model_validate(raw)


def for_task(config: C, task: TaskName) -> C:
    """The configuration of one task alone: its `override` is laid over the rest and removed."""
    raw = config.model_dump(exclude_unset=True)
    own = raw["tasks"][task]
    raw["tasks"] = {task: own}
    raw.pop("ablations", None)
    raw.pop("tuning", None)
    laid_over = {str(section): changes for section, changes in own.pop("override", {}).items()}
    return type(config).model_validate(overlay(raw, laid_over))


def variants(config: C) -> dict[tuple[TaskName, str], C]:
    """The configuration of each ablation's and each tuning's variant, by task and name.

    A name is METHOD.KEY.VALUE or, of an ablation, quark.ABLATION.VARIANT. Tries of methods that the
    task does not run are left out.
    """
    return {
        (task, name): for_variant(config, task, name, changes)
        for _, task, name, changes in _variants(config)
    }


def for_variant(config: C, task: TaskName, name: str, changes: Mapping[str, Any]) -> C:
    """The configuration of a method's variant: its task's, with the changes laid over it."""
    raw = for_task(config, task).model_dump(exclude_unset=True)
    own, family = raw["tasks"][task], name.split(".")[0]
    own["methods"] = [family]
    if "vllm" in own:
        own["vllm"] = [method for method in own["vllm"] if method in sampled_for(family)]
    return type(config).model_validate(overlay(raw, changes))


def _variants(
    config: WrittenConfig,
) -> Iterator[tuple[tuple[str, ...], TaskName, str, Mapping[str, Any]]]:
    """For each variant the key of its changes, its task, its name, and the changes.

    Raises:
        ConfigError: two variants of a task have the same name.
    """
    known: set[tuple[TaskName, str]] = set()
    for under, task, name, changes in _all_variants(config):
        if (task, name) in known:
            raise ConfigError(
                f"{'.'.join(under)}: {name} is the name of another variant too; rename one"
            )
        known.add((task, name))
        yield under, task, name, changes


def _all_variants(
    config: WrittenConfig,
) -> Iterator[tuple[tuple[str, ...], TaskName, str, Mapping[str, Any]]]:
    for sweep, ablation in config.ablations.items():
        for variant, changes in ablation.variants.items():
            under = ("ablations", sweep, "variants", variant)
            laid_over = {str(section): keys for section, keys in changes.items()}
            yield under, ablation.task, f"quark.{sweep}.{variant}", laid_over
    for task, tuning in config.tuning.items():
        for name, tried in tuning.variants.items():
            if name.split(".")[0] not in config.tasks[task].methods:
                continue
            yield ("tuning", task, "tries"), task, name, tried


def _cannot_be_run(
    error: ValidationError, layers: Layers, under: tuple[str, ...] = ()
) -> ConfigError:
    faults = (_explain(fault, layers, under) for fault in error.errors(include_url=False))
    return ConfigError("\n".join(("the configuration cannot be run:", *faults)))


def overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return `below` with the keys of `above` laid over it, mappings merged key by key."""
    merged = copy.deepcopy(dict(below))
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = overlay(merged[key], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _explain(fault: Any, layers: Layers, under: tuple[str, ...]) -> str:
    """One line: file, key, value, what is wrong and, for an unknown key, the nearest valid one.

    The key is named with the keys that it is `under`, for example a task's override.
    """
    path = [part for part in fault["loc"] if not str(part).startswith("[")]  # [key] is pydantic's
    full = [*under, *path]
    key = ".".join(map(str, full))
    where = next((file for file, raw in reversed(layers) if _holds(raw, full)), "configuration")
    if fault["type"] == "missing":
        return f"  {where}: {key} is missing; see config/README.md"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] in ("int_type", "float_type", "bool_type") and _is_quoted(fault["input"]):
        message += "; leave out the quotes"
    if fault["type"] != "extra_forbidden":
        value = "" if isinstance(fault["input"], Mapping) else f" = {fault['input']!r}"
        return f"  {where}: {key or 'whole'}{value}: {message}"
    above = "".join(f"{part}." for part in full[:-1])
    hint = nearest(str(path[-1]), _siblings(path), above)
    return f"  {where}: {key} = {fault['input']!r}: no such key{hint}"


def _is_quoted(value: Any) -> bool:
    """Whether a text would have another type without its quotes."""
    return isinstance(value, str) and not isinstance(typed(value), str)


def _holds(raw: Any, path: Sequence[str | int]) -> bool:
    for part in path:
        try:
            raw = raw[part]
        except (KeyError, IndexError, TypeError):
            return False
    return bool(path)


def _siblings(path: Sequence[str | int]) -> list[str]:
    """Names of the keys valid beside `path`'s last part, walking the models' annotations."""
    reached: Any = WrittenConfig
    for part in path[:-1]:
        if isinstance(reached, type) and issubclass(reached, Section):
            reached = reached.model_fields[str(part)].annotation
        else:  # dict[Name, section] or tuple[section, ...]
            reached = get_args(reached)[0 if isinstance(part, int) else 1]
        if get_origin(reached) is UnionType:  # section | None
            reached = get_args(reached)[0]
    return list(reached.model_fields)
