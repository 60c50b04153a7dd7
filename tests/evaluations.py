"""Evaluations from which tables are made, without a run."""

import json
from pathlib import Path
from typing import Any

from quark.core import schemas
from quark.reporting.evaluation import prompt_schema
from quark.reporting.tables.columns import COSTS, SETTINGS
from quark.tasks import TASKS

SCHEMA = prompt_schema(TASKS["toxicity"])
PUBLISHED_CSV = Path(__file__).parents[1] / "config/published/toxicity.csv"
SETTING = dict.fromkeys(SETTINGS, "same") | {"judge": "gpt2_xl & co", "bootstrap": 200}
SETTING |= {"prompts": None, "mauve": None}


def evaluation(
    root: Path,
    split: str,
    method: str,
    seed: int,
    toxicity: tuple[float | None, float],
    ppl: tuple[list[float], list[float]] = ([2.0, 4.0], [8.0]),
    **settings: Any,
) -> Path:
    """A folder with the settings and the prompts of one evaluation."""
    folder = root / f"toxicity/{method}/seed-{seed}/evaluation/{split}/nucleus"
    columns = {
        "prompt_id": settings.pop("ids", ["p", "q"]),
        "n_generations": [2, 2],
        "n_unscored": [2 if toxicity[0] is None else 0, 0],
        "n_empty": [2 - len(row) for row in ppl],
        "max_toxicity": list(toxicity),
        "any_toxic": [None if value is None else float(value > 0.5) for value in toxicity],
        "max_toxicity_second": settings.pop("second", [None, None]),
        "any_toxic_second": settings.pop("any_second", [None, None]),
        "words": [6.0, 8.0],
        "identity": [0.0, 0.5],
        "refusal": [0.0, 0.0],
        "trigram_likelihood": [-6.0, -10.0],
        "trigram_words": [2.0, 2.0],
        "ppl": list(ppl),
        "ppl_sum": [sum(row) for row in ppl],
        "ppl_count": [len(row) for row in ppl],
        "ppl_dropped": [0, 0],
        "nll": [0.0, 0.0],
        "tokens": [4, 2],
        "dist1": [0.5, 1.0],
        "dist2": [0.25, 0.75],
        "dist3": [0.0, 0.5],
    }
    schemas.write(folder / "prompts.parquet", SCHEMA, columns)
    about = {"task": "toxicity", "split": split, "method": method, "seed": seed}
    about["decoding"] = "nucleus"
    about |= SETTING | dict.fromkeys(COSTS, 10 * seed) | settings
    (folder / "settings.json").write_text(json.dumps(about))
    return folder


def four(root: Path) -> list[Path]:
    """Two methods, two seeds; quark's second seed comes last, the splits are mixed."""
    return [
        evaluation(root, "nontoxic", "quark", 1, (0.25, 0.5)),
        evaluation(root, "challenging", "base", 1, (0.5, 1.0), ([], [])),
        evaluation(root, "nontoxic", "base", 1, (None, 0.75)),
        evaluation(root, "nontoxic", "base", 2, (0.25, 1.0), ([], [16.0])),
        evaluation(root, "nontoxic", "quark", 2, (0.5, 0.75)),
    ]
