"""What the columns of a table are called; a row holds a value for each."""

from typing import Any

SETTINGS = (
    *("model", "judge", "scorer", "scorer_version", "second_scorer"),
    *("temperature", "top_k", "top_p"),
    *("penalty_alpha", "min_new_tokens", "max_new_tokens", "samples", "precision"),
    *("threshold", "bootstrap"),
)
PLACE = ("split", "decoding", "method")
"""What a row is of, beside its task."""
OPTIONAL = ("form", "place", "note")
"""Of a method's reward tokens, and what the split's prompts are; None where there is none."""
REFERENCES = ("quark_guided", "quark")
"""The first of these in a table is what its other rows are compared with."""
DIFFERENCE = ("_difference", "_difference_low", "_difference_high")
"""A metric minus the reference's on the same prompts, and the ends of its interval."""
COSTS = ("scorer_calls", "tokens_sampled", "training_sequences", "training_tokens")

Row = dict[str, Any]


def parts(method: str) -> tuple[str, str | None, str | None]:
    """Method, key and value of a try called METHOD.KEY.VALUE; None where it is no try."""
    family, key, value = [*method.split(".", 2), None, None][:3]
    return str(family), key, value
