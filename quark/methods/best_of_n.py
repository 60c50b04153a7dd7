"""Best of n: the base model draws n continuations for each one kept, the best by the scorer.

Nothing is trained. The scorer that gives the reward chooses, so it must run whenever a text is
continued, and each kept token takes n model passes. A continuation without a score is kept only if
all n have none. n 1 is the base model.
"""

from typing import TYPE_CHECKING, cast

from pydantic import Field

from quark.config.spec import MethodSpec
from quark.config.types import Count, Section

if TYPE_CHECKING:
    from quark.config import WrittenConfig


class Settings(Section):
    """How many it draws."""

    n: Count = Field(description="continuations drawn for each one that is kept")


def _n(config: "WrittenConfig") -> int:
    return cast(Settings, config.plugin("best_of_n")).n


SPEC = MethodSpec(
    "best of n",
    section=Settings,
    draws=_n,
    passes=_n,
    reads_as_base="always",
    look=("#C49C94", "$n$"),
)
