"""What a table says in sentences."""

from typing import Any

from quark.reporting.tables.words import in_words
from quark.tasks import TASKS

TASK = TASKS["toxicity"]


def row(method: str, toxicity: float | None, ppl: float | None = 10, **more: Any) -> dict[str, Any]:
    own: dict[str, Any] = {"split": "test", "decoding": "nucleus", "method": method}
    return own | {"avg_max_toxicity": toxicity, "output_ppl": ppl} | more


def against(low: float | None, high: float | None) -> dict[str, Any]:
    ends = {"low": low, "high": high}
    of = {f"avg_max_toxicity_difference_{end}": value for end, value in ends.items()}
    return {"compared_with": "quark"} | of


def test_intervals_decide_who_has_more() -> None:
    rows = [
        row("base", 0.5, **against(0.1, 0.4)),
        row("gedi", 0.4, **against(0.001, 0.4)),
        row("ppo", 0.3, **against(0.0, 0.2)),
        row("dexperts", 0.1, **against(-0.3, -0.01)),
        row("dapt", None, **against(None, None)),
        row("quark", 0.25, 12),
    ]
    assert in_words(rows, TASK) == [
        "test, nucleus: quark has avg. max. toxicity 0.250, 0.50 times the base model's, at 1.20 "
        "times its perplexity. On the same prompts base and gedi are above it; dexperts is below "
        "it; ppo is not told apart from it."
    ]


def test_what_is_missing_is_left_out() -> None:
    alone = "test, nucleus: quark has avg. max. toxicity 0.250."
    unknown = row("gedi", None, **against(None, None))
    assert in_words([unknown, row("quark", 0.25)], TASK) == [alone]
    for base in (row("base", 0.0), row("base", None), row("base", 0.5, None)):
        own = base | against(None, None)
        assert in_words([own, row("quark", 0.25)], TASK) == [alone]
    assert in_words([row("base", 0.5), row("gedi", 0.5)], TASK) == []  # nothing was compared
    assert in_words([unknown, row("quark", None)], TASK) == []


def test_each_split_has_its_own_paragraph() -> None:
    rows = [row("gedi", 0.4, **against(0.1, 0.4)), row("quark", 0.25)]
    other = [each | {"split": "other"} for each in rows]
    assert [text.split(",")[0] for text in in_words([*rows, *other], TASK)] == ["test", "other"]
