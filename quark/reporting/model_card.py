"""The model card of an exported model, filled from its run.

This module imports no torch.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quark.config import Config, TaskName
from quark.reporting.tables.columns import Row
from quark.reporting.tables.text import read_table, rounded
from quark.tasks import TASKS

UNLEARNED = {
    "toxicity": "toxic continuations",
    "sentiment_positive": "negative continuations",
    "sentiment_negative": "positive continuations",
    "repetition": "repetition",
}


def card(
    config: Config,
    task: TaskName,
    method: str,
    seed: int,
    base: Mapping[str, Any],
    table: Path,
    decoding: str,
    place: float | None = None,
    remote: bool = False,
) -> str:
    """Return the card as Markdown with the front matter of the Hugging Face hub.

    Args:
        config: the task's configuration.
        task, method, seed: the run.
        base: the manifest of the model that training started from.
        table: the task's table; if it does not exist yet, the card says so.
        decoding: the name of the decoding in the generation configuration.
        place: c of linear reward tokens; None: the best token's.
        remote: whether loading needs `trust_remote_code=True`.
    """
    flag = ", trust_remote_code=True" if remote else ""
    own = config.tasks[task]
    quark = config.quark
    front = ["---", f"license: {str(base['licence']).lower()}", "library_name: transformers"]
    front += ["pipeline_tag: text-generation", "tags: [quark, unlearning]", "---"]
    parts = [
        "\n".join(front),
        f"# {base['name']}, {UNLEARNED.get(task, f'low rewards of {task}')} unlearned",
        f"Made from {base['name']} by Quark (Lu et al. 2022, arXiv 2205.13636): it learnt which of "
        f"its own continuations have a high reward, here that of the scorer {own.scorer}, and "
        "writes under the reward token of the best. The token enters by itself." + _place(place),
        "## Use",
        "```python\n"
        "from transformers import pipeline\n\n"
        f'write = pipeline("text-generation", model=FOLDER{flag})\n'
        'print(write("So I started asking them")[0]["generated_text"])\n'
        "```",
        f"Without other settings it draws as the evaluation did (`{decoding}`).",
        "## Measured",
        _measured(table, task, method),
        "## Trained",
        f"Seed {seed}; {quark.iterations} iterations of {quark.training.sequences} sequences, "
        f"{quark.quantiles} quantiles, reward tokens of the form {quark.reward_tokens.form}, KL "
        f"coefficient {quark.training.kl_coef:g}, prompts `{own.prompts}`.",
        "## Limits",
        "It still writes what it was to unlearn, only less often, and less so by the one scorer it "
        "was trained with than by people. Nothing else about it was made safer.",
    ]
    return "\n\n".join(parts) + "\n"


def _place(place: float | None) -> str:
    """Return the card's text about a place of linear reward tokens."""
    if place is None:
        return ""
    if place < 0:
        return (
            f" **It is at place {place:g} of its reward tokens, on the side of the worst: it "
            "writes more of what the reward forbids.**"
        )
    said = f" It is at place {place:g} of its reward tokens: 1 is the best, 0 the base model."
    if place > 1:
        said += (
            " A table's row at this place also keeps to the nucleus of the base model, so it has "
            "less perplexity than this model alone."
        )
    return said


def _measured(table: Path, task: TaskName, method: str) -> str:
    """Return the table's rows of the base model and of the method."""
    if not table.is_file():
        return f"Not yet: there is no {table}."
    rows: list[Row] = [r for r in read_table(table) if r["method"] in ("base", method)]
    _, (header, *lines) = rounded(rows, TASKS[task])[0]
    grid = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in grid)
