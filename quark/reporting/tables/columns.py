"""The names of a table's columns; a row holds a value for each column."""

from typing import Any

SETTINGS = (
    *("model", "judge", "scorer", "scorer_version", "second_scorer"),
    *("temperature", "top_k", "top_p"),
    *("penalty_alpha", "min_new_tokens", "max_new_tokens", "samples", "precision"),
    *("threshold", "bootstrap"),
)
PLACE = ("split", "decoding", "method")
"""The columns that identify a row, besides its task."""
OPTIONAL = ("form", "place", "passes", "note")
"""Form and place of a method's reward tokens; its model passes for each token; the note on the
split. None: there is none, or an older version did not store it."""
BASE = "base"
FLUENCY = "output_ppl"
REFERENCES = ("quark_guided", "quark")
"""The first of these methods in a table is the reference of the other rows."""
DIFFERENCE = ("_difference", "_difference_low", "_difference_high")
"""Name endings: a metric minus the reference's on the same prompts, and its interval's ends."""
COSTS = ("scorer_calls", "tokens_sampled", "training_sequences", "training_tokens")

Row = dict[str, Any]


def parts(method: str) -> tuple[str, str | None, str | None]:
    """Return method, key and value of a try named METHOD.KEY.VALUE; None: it is not a try."""
    family, key, value = [*method.split(".", 2), None, None][:3]
    return str(family), key, value
