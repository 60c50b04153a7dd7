"""Scorers, each found by the name that the configuration gives it.

A scorer is imported only when it is used, so other code needs none of their packages.
"""

import difflib
import os
from collections.abc import Callable, Collection, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from quark.config import Plugins, WrittenConfig


class Scorer(Protocol):
    """A model or rule that scores how toxic, positive or varied each response is.

    Attributes:
        name: as in the configuration.
        version: of the package that holds the model, e.g. "1.9.1".
    """

    name: str
    version: str

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> NDArray[np.float64]:
        """Return scores in [0, 1], shape (n,), in the order given; NaN where the scorer failed.

        A scorer that knows the reason of a failure returns it from `why(prompt, response)`.

        Args:
            prompts: the prompt of each response, shape (n,); a scorer may ignore it.
            responses: the texts to score, shape (n,).
        """
        ...


SCORERS: Plugins[Callable[[], Scorer]] = Plugins(
    "quark.scorers",
    {
        "profanity-check": "quark.scorers.profanity:ProfanityCheck",
        "vader": "quark.scorers.vader:Vader",
        "vader-continuation": "quark.scorers.vader:continuation",
        "diversity": "quark.scorers.diversity:Diversity",
    },
)
"""The function or class that makes each scorer, including those of other packages."""


SERVICE = "perspective"
"""The Perspective API, a scorer."""
KEY = "PERSPECTIVE_API_KEY"
"""The variable of the environment that holds the key of the Perspective API."""


class ScorerError(ValueError):
    """A scorer that does not exist or cannot work; the text says what to do."""


def split(place: str) -> tuple[Path, str]:
    """The file and the name of a function `FILE.py:NAME`."""
    file, _, name = place.rpartition(":")
    return Path(file), name


def version_of(place: str) -> str:
    """The first digits of the SHA-256 of a function's file.

    Raises:
        ScorerError: there is no such file.
    """
    file, _ = split(place)
    if not file.is_file():
        raise ScorerError(f"functions: {file}: no such file; write FILE.py:FUNCTION")
    return sha256(file.read_bytes()).hexdigest()[:16]


def check_scorer(name: str, others: Collection[str] = ()) -> None:
    """Check that a scorer called `name` exists, without loading it.

    Args:
        name: in the configuration.
        others: names of classifiers, functions and services, which are scorers too.

    Raises:
        ScorerError: there is none, or two.
    """
    known = [*SCORERS, *others]
    if known.count(name) > 1:
        raise ScorerError(
            f"classifiers, functions: {name} is a scorer already; choose another name"
        )
    if name not in known:
        nearest = difflib.get_close_matches(name, known, 1, cutoff=0)[0]
        raise ScorerError(f"no scorer {name!r}; did you mean {nearest!r}?")


def asked_scorers(config: WrittenConfig) -> dict[str, str]:
    """The scorer under each key that may also name a classifier or the service."""
    found: dict[str, str] = {}
    for name, task in config.tasks.items():
        found[f"tasks.{name}.scorer"] = task.scorer
        if task.second_scorer is not None:
            found[f"tasks.{name}.second_scorer"] = task.second_scorer
    for part, prompts in config.prompts.items():
        if prompts.sorted is not None:
            found[f"prompts.{part}.sorted.scorer"] = prompts.sorted.scorer
    return found


def check_scorers(config: WrittenConfig) -> None:
    """Check that every scorer in a configuration exists, without loading one.

    Raises:
        ScorerError: there is none, or two, or a function's file is missing; the text names the key.
    """
    others = [*config.classifiers, *config.functions, SERVICE]
    named = [(key, scorer, others) for key, scorer in asked_scorers(config).items()]
    named += [(f"prompts.{name}.scorer", p.scorer, []) for name, p in config.prompts.items()]
    for key, scorer, more in named:
        try:
            check_scorer(scorer, more)
            if scorer in config.functions:
                version_of(config.functions[scorer])
        except ScorerError as error:
            raise ScorerError(f"{key}: {error}") from None


def check_key() -> str:
    """The key of the Perspective API, from the environment, without blanks around it.

    Raises:
        ScorerError: there is no key, or no HTTP header can hold it; the text never shows the key.
    """
    key = os.environ.get(KEY, "").strip()
    if not key:
        raise ScorerError(
            f"the scorer perspective needs a key in the environment: export {KEY}=..., or name "
            "another scorer (the service gives out no new keys and ends with 2026)"
        )
    for place, character in enumerate(key, 1):
        if not "!" <= character <= "~":
            raise ScorerError(
                f"{KEY} in the environment is no key: character {place} of {len(key)} is not a "
                "letter, digit or sign of ASCII; export the key alone, without quotes or comments"
            )
    return key


def load_scorer(name: str) -> Scorer:
    """Make the scorer called `name` in the configuration.

    Raises:
        ScorerError: there is no such scorer.
    """
    check_scorer(name)
    return SCORERS[name]()


def why(scorer: Scorer, prompt: str, response: str) -> str:
    """Why a scorer gave no score, if it knows."""
    known = getattr(scorer, "why", None)
    return str(known(prompt, response)) if known else f"{scorer.name} gave no score"
