"""What a fit gets, and what it returns: methods that learn from the corpus once.

A fit is a function `fit(texts: Texts, settings, out) -> Fitted`, named by a `Part` of the method's
spec. `quark fit` calls it. The fit writes the directory `out`, which the method's decoder gets.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from quark.config import Precision, RewardTokens
from quark.models.lm import Policy
from quark.models.reference_cache import ReferenceCache
from quark.training.trainer import Rows

KEPT = 0.125
"""The share of the memory that hidden states may take."""


class Texts(NamedTuple):
    """The texts that a part learns from.

    `model`: directory of the base model.
    `rows`: the texts; their `label` is 0 for wanted text and 1 for unwanted text.
    `part`: the part's name. `reward_tokens`: their form, if the part has reward tokens.
    `precision`: of matrix products. `seed_name`: of random streams.
    `memory_mb`: memory in MB; limits the rows of a micro-batch.
    """

    model: Path
    rows: Rows
    part: str
    reward_tokens: RewardTokens | None
    precision: Precision
    seed_name: str
    memory_mb: int


class Fitted(NamedTuple):
    """What a fit returns.

    `passes`: how often it read the texts.
    `facts`: numbers for `training.json`; `steps` has each optimiser step's terms, such as `loss`.
    """

    passes: int
    facts: Mapping[str, Any]


Fit = Callable[[Texts, Any, Path], Fitted]


def reader(policy: Policy, texts: Texts, passes: int) -> Callable[[Rows], Tensor]:
    """Return a function that gives a frozen model's last hidden states, (tokens, d), of some rows.

    States that are needed in several `passes` are kept, if all fit into the share `KEPT` of the
    memory.
    """
    size = 4 * int(texts.rows.lengths.sum()) * policy.head.shape[1]
    is_kept = passes > 1 and size <= KEPT * 1e6 * texts.memory_mb
    cache = ReferenceCache()

    def read(rows: Rows) -> Tensor:
        known = cache if is_kept else ReferenceCache()
        return known.of(policy, rows.ids, rows.prompts, rows.responses)

    return read
