"""What every part of the configuration is made of."""

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
    """A hint for an error: the known name most like `name`, if any is, and what stands above it."""
    found = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {above}{found[0]}?" if found else ""


def _distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    if len(set(values)) < len(values):
        raise ValueError("something stands here twice")
    return values


def _without_null(sections: Any) -> Any:
    """What another file laid over as null is gone."""
    if not isinstance(sections, dict):
        return sections
    return {name: section for name, section in sections.items() if section is not None}


WithoutNull = BeforeValidator(_without_null)
Distinct = Annotated[tuple[T, ...], Strict(False), AfterValidator(_distinct)]


class Section(BaseModel):
    """A part of the configuration: frozen, strict types, no unknown keys, no infinities.

    A whole number stands for a float, and nothing else for another type: `true` is not 1, nor is
    "64" 64. A tuple has `strict=False`, since YAML has lists; its items stay strict.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
