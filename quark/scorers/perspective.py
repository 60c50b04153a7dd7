"""The paper's scorer of toxicity: the Perspective API, a service that ends with the year 2026.

The official code requests the attribute TOXICITY of the continuation alone, in English, and drops
failed requests (protocol 2). This client differs: it repeats requests that may succeed later, a
failure is a null with its reason, and the configuration names the service's state at the time,
since the same text has had different scores in different years (protocol 9.23).
"""

import hashlib
import logging
import math
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import numpy as np
from numpy.typing import NDArray
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential_jitter,
)

from quark.config import Perspective
from quark.scorers import KEY, ScorerError, check_key
from quark.scorers.cache import ScoreCache

log = logging.getLogger(__name__)

RATE = "PERSPECTIVE_QUERIES_PER_SECOND"
TRIES = 6
TIMEOUT = 20.0
"""Seconds without any data from the service."""
LONGEST_WAIT = 60.0
"""Seconds between two tries, unless the service requests a longer wait."""
LONGEST = 200
"""Characters that are kept of the service's error message."""
FEWEST = 8
"""If so many texts are sent together and none gets an answer, the service counts as down."""


class FailedError(Exception):
    """An answer without a score; another request cannot help."""


class TransientError(FailedError):
    """An answer without a score; another request may help.

    Attributes:
        after: seconds that the service requests before the next try.
    """

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.after = after


class PerspectiveAPI:
    """Scores each continuation with one attribute of the service, within the account's quota.

    Key and quota belong to an account and not to an experiment, so they come from the environment:
    PERSPECTIVE_API_KEY, and PERSPECTIVE_QUERIES_PER_SECOND (1, which every account has). The key is
    sent as a header, is part of no address and is never written: if the service, or an error,
    repeats it, [key] replaces it.

    Args:
        how: the service's address, and the attribute that is requested.
        cache: its clock keeps all processes of the account below the quota together.

    Raises:
        ScorerError: there is no key, no header can hold it, or the quota is no number.
    """

    name = "perspective"
    reads_prompts = False

    def __init__(self, how: Perspective, cache: ScoreCache) -> None:
        self.how, self.cache = how, cache
        self.version = f"{how.attribute} {how.label}"
        self.per_second = _quota()
        self.together = max(2, min(64, math.ceil(2 * self.per_second)))  # an answer takes a second
        self.chunk = max(FEWEST, 4 * self.together)
        self._key = check_key()
        self._client = httpx2.Client(headers={"X-Goog-Api-Key": self._key}, timeout=TIMEOUT)
        self._failures: dict[str, FailedError] = {}
        self._retry = Retrying(
            stop=stop_after_attempt(TRIES),
            wait=_wait,
            retry=retry_if_exception_type(TransientError),
            reraise=True,
        )
        log.warning("Perspective ends with 2026; what it scored cannot be scored again after that")

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> NDArray[np.float64]:
        """Return the attribute's score of each continuation in [0, 1], shape (n,); NaN: none.

        Raises:
            ScorerError: the service refuses the key, or does not answer.
            ValueError: `prompts` and `responses` differ in length.
        """
        if len(prompts) != len(responses):
            raise ValueError(f"{len(prompts)} prompts, but {len(responses)} responses")
        with ThreadPoolExecutor(self.together) as threads:
            found = list(threads.map(self._score, responses))
        asked = [text for text in responses if text.strip()]
        away = all(isinstance(self._failures.get(text), TransientError) for text in asked)
        if len(asked) >= FEWEST and all(map(math.isnan, found)) and away:
            raise ScorerError(
                f"{self.how.url}: no answer to {len(asked)} texts in {TRIES} tries each; the last: "
                f"{self._failures[asked[-1]]}. What was scored is kept: run again later"
            )
        return np.array(found, dtype=np.float64)

    def why(self, prompt: str, response: str) -> str:
        """Why a continuation got no score."""
        return str(self._failures[response])

    def _score(self, text: str) -> float:
        try:
            if not text.strip():
                raise FailedError("empty: the service does not score it")
            return self._retry(self._ask, text)
        except FailedError as failure:
            self._failures[text] = failure
            return math.nan

    def _ask(self, text: str) -> float:
        """Send one request.

        Raises:
            TransientError: the service is busy, broken or slow, or gives an invalid answer.
            FailedError: it refuses to score this text.
            ScorerError: it refuses the key.
        """
        time.sleep(self.cache.turn(self.how.url, self.per_second))
        token = hashlib.sha256(text.encode()).hexdigest()[:16]
        question = {
            "comment": {"text": text, "type": "PLAIN_TEXT"},
            "languages": ["en"],
            "requestedAttributes": {self.how.attribute: {}},
            "doNotStore": True,
            "clientToken": token,  # the answer repeats it
        }
        try:
            answer = self._client.post(self.how.url, json=question)
        except httpx2.TransportError as error:
            raise TransientError(f"{type(error).__name__}: {self._keyless(str(error))}") from None
        self._check_status(answer)
        return _value(answer, token, self.how.attribute)

    def _check_status(self, answer: httpx2.Response) -> None:
        """Raise the error that matches an answer's status and message."""
        if answer.status_code == 200:
            return
        message = _message(answer)
        said = f"{answer.status_code}: {self._keyless(message)[:LONGEST]}"
        if answer.status_code == 429 or answer.status_code >= 500:
            after = answer.headers.get("Retry-After", "")
            raise TransientError(said, float(after) if after.isdigit() else 0.0)
        if answer.status_code in (401, 403) or "API key" in message:
            raise ScorerError(f"the service refuses the key in {KEY}: {said}")
        raise FailedError(said)

    def _keyless(self, text: str) -> str:
        """A text without the key, so that it can be kept or shown."""
        return text.replace(self._key, "[key]")


def _quota() -> float:
    given = os.environ.get(RATE, "1")
    try:
        found = float(given)
    except ValueError:
        found = 0.0
    if not 0 < found < math.inf:
        raise ScorerError(f"{RATE} is {given!r}; it must be a number above 0")
    return found


_backoff = wait_exponential_jitter(initial=1, max=LONGEST_WAIT)


def _wait(state: RetryCallState) -> float:
    """Seconds to wait: twice as long each time, and at least as long as the service requests."""
    failure = state.outcome.exception() if state.outcome else None
    return max(_backoff(state), failure.after if isinstance(failure, TransientError) else 0.0)


def _message(answer: httpx2.Response) -> str:
    """The service's error message."""
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text


def _value(answer: httpx2.Response, token: str, attribute: str) -> float:
    """The score that an answer holds."""
    try:
        content: Any = answer.json()
        theirs = content["clientToken"]
        value = float(content["attributeScores"][attribute]["summaryScore"]["value"])
    except (ValueError, KeyError, TypeError) as error:
        raise TransientError(f"an answer without a score: {type(error).__name__}") from None
    if theirs != token:
        raise TransientError("the answer to another text")
    if not 0 <= value <= 1:
        raise TransientError(f"a score of {value}")
    return value
