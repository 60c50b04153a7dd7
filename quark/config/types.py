"""Building blocks of every part of the configuration."""

import difflib
from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Precision = Literal["bf16", "fp32"]
AskedPrecision = Literal["auto", "bf16", "fp32"]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]

T = TypeVar("T")


def nearest(name: str, known: Iterable[str], above: str = "") -> str:
    """A hint for an error: the known name most similar to `name`, if any, after `above`."""
    found = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {above}{found[0]}?" if found else ""


def _distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    if len(set(values)) < len(values):
        raise ValueError("something stands here twice")
    return values


def _without_null(sections: Any) -> Any:
    """Leave out sections that another file set to null."""
    if not isinstance(sections, dict):
        return sections
    return {name: section for name, section in sections.items() if section is not None}


WithoutNull = BeforeValidator(_without_null)
Distinct = Annotated[tuple[T, ...], Strict(False), AfterValidator(_distinct)]


class Section(BaseModel):
    """A part of the configuration: frozen, strict types, no unknown keys, no infinities.

    A whole number is accepted as a float. No other type is converted: `true` is not 1, and "64" is
    not 64. A tuple has `strict=False`, since YAML has lists; its items stay strict.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
