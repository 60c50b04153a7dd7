"""A scorer that is a function of yours: `score(prompts, responses)` in a Python file.

The configuration names it as `functions: {mine: reward.py:score}`. The function gets two lists of
texts of equal length and returns a score in [0, 1] for each; None or NaN where it has none. It gets
some of the texts at a time, so a score must not depend on the other texts. A change of the file is
a new version: the next run scores again what the old one scored. Files that it imports are not
watched; do not change them, or this one, while a run is going on. The file runs as a program of
yours would: name only one that you trust.
"""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from quark.scorers import ScorerError, split, version_of


class Function:
    """The scorer.

    Args:
        name: in the configuration.
        place: `FILE.py:FUNCTION`, from the working directory.
        version: of the file; another file is refused.

    Raises:
        ScorerError: the file changed since the run began, cannot be run, or has no such function.
    """

    def __init__(self, name: str, place: str, version: str) -> None:
        self.name, self.version, self.place = name, version, place
        if version_of(place) != version:
            raise ScorerError(f"{place}: the file has changed since the run began; start it again")
        self._function = _load(place)

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> NDArray[np.float64]:
        """The function's scores, (n,); NaN where it gave none.

        Raises:
            ScorerError: the function fails, or returns no score for each text.
        """
        try:
            found = self._function(list(prompts), list(responses))
            scores = np.array([np.nan if s is None else float(s) for s in found])
        except Exception as error:  # of the user's code
            raise ScorerError(f"{self.place}: {type(error).__name__}: {error}") from error
        if len(scores) != len(responses):
            raise ScorerError(f"{self.place}: {len(scores)} scores for {len(responses)} texts")
        return scores


def _load(place: str) -> Callable[[list[str], list[str]], Any]:
    file, name = split(place)
    spec = importlib.util.spec_from_file_location(f"quark_function_{file.stem}", file)
    assert spec is not None and spec.loader is not None  # since it is a .py file
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    if (folder := str(file.resolve().parent)) not in sys.path:
        sys.path.append(folder)  # it may import its neighbours, also later
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # of the user's code
        raise ScorerError(f"{file}: {type(error).__name__}: {error}") from error
    if not callable(function := getattr(module, name, None)):
        raise ScorerError(f"{file}: has no function {name}")
    return cast(Callable[[list[str], list[str]], Any], function)
