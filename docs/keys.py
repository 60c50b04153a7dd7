"""Write the tables of config/README.md from the configuration's models.

    python docs/keys.py

A key's type, meaning and default come from `quark/config/` and `config.yaml`. What runs again is
tried: the key is changed, and the stages whose settings change are named.
"""

import copy
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_args

import yaml

from quark.config import Config, Section, WrittenConfig, load, resolved
from quark.config.registry import METHODS
from quark.stages.graph import Graph

ROOT = Path(__file__).parents[1]
README = ROOT / "config/README.md"
MARK = re.compile(r"(<!-- keys (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
CHOSEN = {  # what stands for a name that a user chooses, by what stands above it
    "tasks": "TASK",
    "tuning": "TASK",
    "splits": "SPLIT",
    "variants": "VARIANT",
    "override": "SECTION",
    "tries": "SECTION",
    "VARIANT": "SECTION",
    "SECTION": "KEY",
    "plugins": "METHOD",
    "METHOD": "KEY",
}
WITH_DEFAULTS = (
    *("seeds", "precision", "perspective", "quark", "quark_guided", "baselines"),
    *("evaluation", "benchmark"),
)
NEVER = ("prompts.NAME.sources[].random.", "classifiers.NAME.random.")
"""Keys that a section has from the one it is made of, but may not set."""
NEEDS: dict[str, dict[str, Any]] = {
    "penalty_alpha": {"temperature": 1.0, "top_k": 8, "top_p": 1.0},
    "lora": {"trained_layers": 1},
}
"""What must stand beside a key before it can be changed."""


class Key(NamedTuple):
    """One key: its place as the tables write it, and its JSON schema, `null` left out."""

    name: str
    schema: Mapping[str, Any]
    nullable: bool
    description: str


NOT_TRIED = {"seeds": "a new seed: its own jobs, and the table", "benchmark": "the benchmarks"}
BEFORE: dict[str, set[str]] = {
    "score": set(),
    "sample": set(),
    "quantize": {"sample"},
    "train": {"sample", "quantize"},
    "learn": {"sample"},
    "corpus": set(),
    "fit": {"corpus"},
    "generate": {"train", "learn", "fit"},
    "predict": {"train", "learn", "fit", "generate"},
    "judge": set(),
    "mauve": set(),
    "evaluate": {"train", "learn", "fit", "generate"},
}
"""The verbs, and after which of them each runs again whether its settings change or not."""


# -------------------------------------------------------------------------------- types in words
def every_key() -> Iterator[Key]:
    """All keys of the configuration, in their order."""
    whole = WrittenConfig.model_json_schema()
    found = _keys(whole, "", whole["$defs"], False, "")
    return (key for key in found if not key.name.startswith(NEVER))


def _keys(
    schema: Mapping[str, Any], name: str, known: Mapping[str, Any], nullable: bool, said: str
) -> Iterator[Key]:
    said = schema.get("description", said) if "properties" not in schema else said
    if "$ref" in schema:
        schema = known[schema["$ref"].rpartition("/")[2]]
    options = schema.get("anyOf") or schema.get("oneOf") or []
    real = [option for option in options if option.get("type") != "null"]
    if len(real) == 1:
        default = {"default": schema["default"]} if "default" in schema else {}
        yield from _keys(real[0] | default, name, known, nullable or len(options) > 1, said)
    elif "properties" in schema:
        for key, inner in schema["properties"].items():
            yield from _keys(inner, f"{name}.{key}" if name else key, known, False, "")
    elif schema.get("type") == "object":
        chosen = CHOSEN.get(name.split(".")[-1], "NAME")
        yield from _keys(_inner(schema), f"{name}.{chosen}", known, False, said)
    elif "$ref" in schema.get("items", {}):
        yield from _keys(schema["items"], f"{name}[]", known, False, said)
    else:
        yield Key(name, schema, nullable, said)


def _inner(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of what stands under chosen names."""
    patterns = list(schema.get("patternProperties", {}).values())
    found = patterns[0] if patterns else schema.get("additionalProperties", {})
    return {} if found is True else found


def kind(schema: Mapping[str, Any], nullable: bool) -> str:
    """A type in words."""
    text = _kind(schema)
    if not nullable:
        return text
    return f"{text}, or null" if ", " in text or " " in text else f"{text} or null"


def _kind(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(_kind(o) for o in options if o.get("type") != "null")
    match schema.get("type"):
        case "boolean":
            return "true or false"
        case "integer" | "number":
            return _range(schema)
        case "string":
            return "name" if schema.get("pattern", "").startswith("^[a-z0-9][") else "text"
        case "array" if "prefixItems" in schema:
            return f"two of: {_kind(schema['prefixItems'][0])}"
        case "array":
            return f"list of: {_kind(schema['items'])}"
        case "object":
            return "{NAME: " + _kind(_inner(schema)) + "}"
    return "any"


def _range(schema: Mapping[str, Any]) -> str:
    number = "int" if schema["type"] == "integer" else ""
    if (schema.get("minimum"), schema.get("maximum")) == (0, 1):
        return "0 to 1"
    least, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    most, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    words = [
        f"from {least:g}" if least is not None else "",
        f"above {above:g}" if above is not None else "",
        f"to {most:g}" if most is not None else "",
        f"below {below:g}" if below is not None else "",
    ]
    limits = ", ".join(word for word in words if word)
    if not limits:
        return number or "number"
    return f"{number} {limits}".strip()


# ------------------------------------------------------------------------------- what runs again
@cache
def _everything() -> Config:
    """The default with every method in one task, which has all that a task may have."""
    config = _as_it_runs()
    task = {"methods": tuple(METHODS), "prefix": 8, "scorer": "perspective"}
    mauve = {"model": "mle", "tokens": 1, "buckets": None, "scaling": 1.0, "seed": 1}
    changes = {
        "tasks": {"toxicity": config.tasks["toxicity"].model_copy(update=task)},
        "evaluation": _with(config.evaluation, ["mauve"], mauve),
    }
    return config.model_copy(update=changes)


@cache
def _as_it_runs() -> Config:
    return resolved(load([ROOT / "config/config.yaml"]), "bf16")


def _with(section: Section, path: list[str], value: Any) -> Any:
    """A copy of a section with one key changed, whatever the others say of it."""
    name, *rest = path
    here = getattr(section, name)
    if isinstance(here, dict) and rest:
        name_of_one, *rest = rest
        one = next(iter(here)) if name_of_one == "NAME" else name_of_one
        changed = {**here, one: _with(here[one], rest, value) if rest else value}
    elif rest:
        changed = _with(here, rest, value)
    elif isinstance(value, dict) and here is None:
        kinds = get_args(type(section).model_fields[name].annotation)
        changed = next(k for k in kinds if hasattr(k, "model_fields")).model_validate(value)
    else:
        changed = value
    return section.model_copy(update={name: changed})


def _value(section: Any, path: list[str]) -> Any:
    """What stands at a path; None in a section that is null."""
    for name in path:
        if section is None:
            return None
        if isinstance(section, dict):
            section = section[next(iter(section))] if name == "NAME" else section.get(name)
        else:
            section = getattr(section, name)
    return section


def _other(value: Any, schema: Mapping[str, Any]) -> Any:
    """Another value of the same type."""
    if "enum" in schema:
        return next(each for each in reversed(schema["enum"]) if each != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, float):
        return 0.9 * value if value else 0.1
    if isinstance(value, int):
        return value + 1
    if isinstance(value, tuple):
        return (_other(value[0], {}), *value[1:])
    if isinstance(value, dict):
        return {name: 2 * each for name, each in value.items()}
    if isinstance(value, str):
        return f"{value}-other"
    match schema.get("type"):
        case "integer" | "number":
            return 1
        case "array":
            return (0.5,)
    return "other"


@cache
def _graph() -> Graph:
    return Graph(_as_it_runs())


def _settings(config: Config) -> dict[tuple[str, str], list[str]]:
    """The settings of each verb and method, of a configuration that need not be valid."""
    found: dict[tuple[str, str], list[str]] = {}
    graph = copy.copy(_graph())
    graph.config, graph.tasks, graph.variants = config, {"toxicity": config}, {}
    for verb, of, settings in graph.settings("toxicity"):
        found.setdefault((verb, of), []).append(settings.model_dump_json())
    return found


@cache
def _unchanged() -> dict[tuple[str, str], list[str]]:
    return _settings(_everything())


def runs_again(key: Key) -> str:
    """The verbs whose settings hold a key, and of which methods where it is not all."""
    config, path = _everything(), key.name.split(".")
    if in_lora := path[:3] == ["quark", "training", "lora"]:
        path = path[:3]
    for name, value in NEEDS.get(path[-1], {}).items():
        config = _with(config, [*path[:-1], name], value)
    value = {"rank": 1, "alpha": 1} if in_lora else _other(_value(config, path), key.schema)
    before = _unchanged() if config is _everything() else _settings(config)
    after = _settings(_with(config, path, value))
    changed = [
        place
        for place, settings in before.items()
        if any(
            one != other for one, other in zip(settings, after.get(place, settings), strict=False)
        )
    ]
    verbs = {verb for verb, _ in changed}
    parts = []
    for verb, earlier in BEFORE.items():
        every = [of for other, of in before if other == verb]
        some = [of for other, of in changed if other == verb]
        if some == every:
            parts.append(verb)
        elif some and not verbs & earlier:
            parts.append(f"{verb} of {', '.join(some)}")
    return "; ".join(parts)


# ------------------------------------------------------------------------------------ the tables
@cache
def _default() -> dict[str, Any]:
    found: dict[str, Any] = load([ROOT / "config/config.yaml"]).model_dump(mode="json")
    return found


def _shown(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=1000).strip()
    return text.removesuffix("...").strip()


def row(key: Key) -> list[str]:
    """The cells of a key's row."""
    cells = [f"`{key.name}`", kind(key.schema, key.nullable)]
    top = key.name.split(".")[0]
    if top in WITH_DEFAULTS:
        cells.append(f"`{_shown(_value(_default(), key.name.split('.')))}`")
    elif key.name.split(".")[-1] != "KEY":
        has = "default" in key.schema
        cells.append(f"`{_shown(key.schema['default'])}`" if has else "")
    else:
        cells.append("")
    cells.append(key.description)
    if top in WITH_DEFAULTS:
        cells.append(NOT_TRIED[top] if top in NOT_TRIED else runs_again(key))
    return cells


def table(prefix: str) -> str:
    """The rows of all keys at or below a prefix; several prefixes are joined by commas."""
    rows = [row(key) for key in every_key() if _below(key.name, prefix.split(","))]
    head = ["key", "type", "default", "meaning", "runs again"][: len(rows[0])]
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n".replace("|  |", "| |") for cells in lines)


def _below(name: str, prefixes: list[str]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def written(text: str) -> str:
    """A page whose tables are made anew."""
    return MARK.sub(lambda mark: f"{mark[1]}{table(mark[2])}{mark[3]}", text)


if __name__ == "__main__":
    README.write_text(written(README.read_text()))
