"""config/README.md names every key, as docs/keys.py writes it from the configuration's models."""

import json
import re

import keys
import pytest

NAMES = [key.name for key in keys.every_key()]
PAGE = keys.README.read_text()


def test_the_tables_are_fresh() -> None:
    assert keys.written(PAGE) == PAGE, "python docs/keys.py writes config/README.md anew"


def test_every_key_has_one_row() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|", PAGE, re.MULTILINE)
    assert sorted(rows) == sorted(NAMES)


def test_every_key_says_what_it_means() -> None:
    assert not [key.name for key in keys.every_key() if not key.description]


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "integer", "minimum": 1}, "int from 1"),
        ({"type": "number", "minimum": 0, "maximum": 1}, "0 to 1"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "above 0, to 1"),
        ({"type": "number", "minimum": 0, "exclusiveMaximum": 1}, "from 0, below 1"),
        ({"type": "number"}, "number"),
        ({"type": "boolean"}, "true or false"),
        ({"enum": ["a", "b"], "type": "string"}, "a, b"),
        ({"type": "array", "items": {"type": "string"}}, "list of: text"),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, "int or text"),
        ({}, "any"),
    ],
)
def test_types_in_words(schema: dict[str, object], text: str) -> None:
    assert keys.kind(schema, nullable=False) == text
    assert keys.kind(schema, nullable=True).removesuffix(" or null").removesuffix(",") == text


@pytest.mark.parametrize(
    ("name", "verbs"),
    [
        ("quark.training.kl_coef", "train"),
        ("quark.quantiles", "quantize; train"),
        ("baselines.gedi.weight", "generate of gedi"),
        ("baselines.dexperts.training.epochs", "fit of expert, anti-expert"),
        ("evaluation.threshold", "evaluate"),
    ],
)
def test_what_runs_again(name: str, verbs: str) -> None:
    (key,) = (key for key in keys.every_key() if key.name == name)
    assert keys.runs_again(key) == verbs


def test_the_schema_file_is_what_the_tables_read() -> None:
    """Of the same models, so that an editor says the same as the page."""
    schema = json.loads((keys.ROOT / "workflow/schemas/config.schema.json").read_text())
    described = schema["$defs"]["Training"]["properties"]["sequences"]["description"]
    assert described in PAGE
