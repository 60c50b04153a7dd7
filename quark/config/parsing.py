"""Read one YAML file of the configuration, or the values of Snakemake's `--config`."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError


class ConfigError(ValueError):
    """A configuration that cannot be run; its text names file, key, value and remedy."""


def read(file: Path) -> dict[str, Any]:
    """The content of a YAML file.

    Raises:
        ConfigError: it cannot be read, is not valid YAML, holds a key twice, or is no mapping.
    """
    try:
        text = file.read_bytes().decode()
        content = yaml.load(text, _Loader)
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such configuration file") from None
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; name a YAML file that can be read") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{file}, line {line}: not UTF-8; convert the file") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ConfigError(f"{file}, line {line}: not valid YAML: {error.problem}") from None
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        fault = f"the character U+{error.character:04X}"
        raise ConfigError(f"{file}, line {line}: not valid YAML: {fault}; remove it") from None
    except RecursionError:
        raise ConfigError(f"{file}: not valid YAML: it is nested too deeply") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: a configuration is a mapping of keys to values")
    return content


def typed(value: Any) -> Any:
    """Values of Snakemake's `--config`, typed as in a file: in brackets it leaves them as text."""
    if isinstance(value, Mapping):
        return {key: typed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [typed(inner) for inner in value]
    if not isinstance(value, str):
        return value
    loader: Any = _Loader("")
    tag = loader.resolve(yaml.ScalarNode, value, (True, False))
    if tag.rpartition(":")[2] not in ("null", "bool", "int", "float"):
        return value
    return loader.construct_object(yaml.ScalarNode(tag, value))


class _Loader(yaml.SafeLoader):
    """A loader of YAML whose keys are text and unique; 1e-4 is a number, as in YAML 1.2."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        begun = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        node: Any = super().compose_node(parent, index)
        if node.end_mark is None:  # it is still being composed
            raise ComposerError(None, None, "an alias stands within what it names", begun)
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if key.tag.rpartition(":")[2] not in ("str", "merge"):
                fault = f"the key {key.value} is no text; put it in quotes"
                raise ComposerError(None, None, fault, key.start_mark)
            if key.value in lines:
                fault = f"{key.value} stands here and in line {lines[key.value]}; keep one"
                raise ComposerError(None, None, fault, key.start_mark)
            lines[key.value] = key.start_mark.line + 1
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (AttributeError, LookupError, TypeError, ValueError):  # such as month 13
            fault = f"{node.value!r} is no {node.tag.rpartition(':')[2]}"
            raise ConstructorError(None, None, fault, node.start_mark) from None


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)
