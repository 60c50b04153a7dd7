import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from quark.core import schemas
from quark.core.schemas import LIKELIHOODS, SAMPLES, SCORES, TableError
from quark.reporting.evaluation import (
    evaluate,
    keep_best,
    over_seeds,
    prompt_schema,
    read_prompts,
    summary,
)
from quark.tasks import TASKS

TASK = TASKS["toxicity"]
LN2 = math.log(2)
# prompt, response, score, nll, tokens; perplexities 2, 8 | 4, 2 ** 20 (dropped) | none, 2
ROWS: list[tuple[str, str, float | None, float, int]] = [
    ("q", "a b a", 0.2, 3 * LN2, 3),
    ("p", "a b", 0.5, 4 * LN2, 2),
    ("q", "a b c", 0.6, 9 * LN2, 3),
    ("p", "c", None, 20 * LN2, 1),
    ("r", "", None, 0.0, 0),
    ("r", "d e", None, 2 * LN2, 2),
]
Edit = Callable[[str, dict[str, list[Any]]], None]


def _run(folder: Path, edit: Edit = lambda name, columns: None, rows: Sequence[Any] = ROWS) -> Path:
    prompts, responses, scores, nll, tokens = map(list, zip(*rows, strict=True))
    ids = {"row_id": [f"0/{p}/{i}" for i, p in enumerate(prompts)], "prompt_id": prompts}
    n = len(prompts)
    tables: dict[str, tuple[Any, dict[str, list[Any]]]] = {
        "generations": (
            SAMPLES,
            {
                "sample": list(range(n)),
                "prompt": prompts,
                "response": responses,
                "prompt_ids": [[1]] * n,
                "response_ids": [[2]] * n,
            },
        ),
        "scores": (SCORES, {"score": scores}),
        "likelihoods": (LIKELIHOODS, {"nll": nll, "tokens": tokens}),
    }
    for name, (schema, columns) in tables.items():
        whole = {key: list(values) for key, values in (ids | columns).items()}
        edit(name, whole)
        schemas.write(folder / f"{name}.parquet", schema, whole)
    evaluate(
        *(folder / f"{name}.parquet" for name in tables),
        folder / "prompts.parquet",
        folder / "metrics.json",
        task=TASK,
        threshold=0.5,
    )
    return folder


def test_prompts(tmp_path: Path) -> None:
    _run(tmp_path)
    table = pq.read_table(tmp_path / "prompts.parquet").to_pydict()
    assert list(table) == prompt_schema(TASK).names
    assert table["prompt_id"] == ["q", "p", "r"]  # as they first appear
    assert table["n_generations"] == [2, 2, 2]
    assert table["n_unscored"] == [0, 1, 2]
    assert table["n_empty"] == [0, 0, 1]
    assert table["max_toxicity"] == [0.6, 0.5, None]
    assert table["any_toxic"] == [1, 0, None]  # 0.5 is not above 0.5
    # exp(k log 2) is 2 ** k to a few ulp times k <= 20
    close = dict(rel=1e-13)
    assert table["ppl"] == [pytest.approx(row, **close) for row in ([2, 8], [4, 2**20], [2])]
    assert table["ppl_sum"] == pytest.approx([10, 4, 2], **close)
    assert table["ppl_count"] == [2, 1, 1]
    assert table["ppl_dropped"] == [0, 1, 0]
    assert table["nll"] == pytest.approx([12 * LN2, 24 * LN2, 2 * LN2], **close)
    assert table["tokens"] == [6, 3, 2]
    assert table["dist1"] == [3 / 6, 3 / 3, 3 / 3]  # "" is one empty word
    assert table["dist2"] == [3 / 6, 1 / 3, 1 / 3]
    assert table["dist3"] == [2 / 6, 0, 0]
    assert schemas.about(tmp_path / "prompts.parquet") == {"threshold": 0.5}


def test_metrics(tmp_path: Path) -> None:
    found = json.loads((_run(tmp_path) / "metrics.json").read_text())
    assert "trigram_ppl" in found  # see tests/tasks/test_toxicity.py
    assert {name: found[name] for name in found if name != "trigram_ppl"} == {
        "avg_max_toxicity": pytest.approx(0.55),
        "toxicity_prob": 0.5,
        "avg_max_toxicity_second": None,
        "toxicity_prob_second": None,
        "words": pytest.approx((6 / 2 + 3 / 2 + 2 / 2) / 3),
        "identity": 0,
        "refusal": 0,
        "output_ppl": pytest.approx(16 / 4),
        "output_ppl_median": pytest.approx(4),  # of 2 2 4 8 2 ** 20
        "output_ppl_exp_mean_nll": pytest.approx(2 ** (38 / 11)),
        "dist1": pytest.approx(2.5 / 3),
        "dist2": pytest.approx((1 / 2 + 1 / 3 + 1 / 3) / 3),
        "dist3": pytest.approx(1 / 9),
        "n_prompts": 3,
        "n_prompts_unscored": 1,
        "n_generations": 6,
        "n_unscored": 3,
        "n_empty": 1,
        "n_ppl_dropped": 1,
    }


def test_row_order_of_the_other_tables_does_not_matter(tmp_path: Path) -> None:
    def turn(name: str, columns: dict[str, list[Any]]) -> None:
        if name != "generations":
            for values in columns.values():
                values.reverse()

    straight, turned = _run(tmp_path / "a"), _run(tmp_path / "b", turn)
    for file in ("metrics.json", "prompts.parquet"):
        assert (straight / file).read_bytes() == (turned / file).read_bytes()


def test_perplexity_that_is_undefined_is_null(tmp_path: Path) -> None:
    _run(tmp_path, rows=[("p", "a", 0.5, 20.0, 1), ("p", "b", 0.1, 30.0, 1)])  # both dropped
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["output_ppl"] is None
    assert metrics["n_ppl_dropped"] == 2
    assert metrics["output_ppl_exp_mean_nll"] == pytest.approx(math.exp(25))


def test_over_seeds(tmp_path: Path) -> None:
    changed = [("r", "z", 0.8, 3 * LN2, 1), *ROWS[:4]]  # another order, r now has a score
    one, two = (
        read_prompts(_run(tmp_path / name, rows=rows) / "prompts.parquet", TASK)
        for name, rows in (("1", ROWS), ("2", changed))
    )
    merged = over_seeds([one, two], TASK)
    assert merged["max_toxicity"].to_dict() == pytest.approx({"q": 0.6, "p": 0.5, "r": 0.8})
    assert merged["tokens"].to_dict() == {"q": 12, "p": 6, "r": 3}
    assert merged["dist1"].to_dict() == {"q": 0.5, "p": 1, "r": 1}
    assert list(merged.loc["r", "ppl"]) == pytest.approx([2, 8])
    # counted: 2 8 4 2 and 8 2 8 4; each generation weighs the same
    assert summary(merged, TASK)["output_ppl"] == pytest.approx((16 + 22) / 8)
    assert summary(over_seeds([one], TASK), TASK) == summary(one, TASK)


def _set(table: str, column: str, row: int, value: Any) -> Edit:
    def edit(name: str, columns: dict[str, list[Any]]) -> None:
        if name == table:
            columns[column][row] = value

    return edit


def _drop(table: str) -> Edit:
    def edit(name: str, columns: dict[str, list[Any]]) -> None:
        if name == table:
            for values in columns.values():
                values.pop(2)

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_drop("scores"), r"scores.parquet: no row 0/q/2, which .*generations.parquet has \(1 "),
        (_drop("generations"), r"generations.parquet: no row 0/q/2, which .*scores.parquet has"),
        (_drop("likelihoods"), r"likelihoods.parquet: no row 0/q/2"),
        (_set("scores", "row_id", 3, "0/q/0"), "scores.parquet: row 0/q/0: stands there twice"),
        (_set("scores", "prompt_id", 3, "q"), "row 0/p/3: not the prompt that .*generations"),
        (_set("scores", "score", 1, 1.5), r"scores.parquet: row 0/p/1: a score outside \[0, 1\]"),
        (_set("scores", "score", 1, math.nan), "scores.parquet: row 0/p/1: its score is NaN"),
        (_set("likelihoods", "nll", 0, math.nan), "row 0/q/0: an nll that is not finite"),
        (_set("likelihoods", "tokens", 5, -1), "row 0/r/5: a negative number of tokens"),
        (
            lambda name, columns: columns.update(score=[None] * 6) if name == "scores" else None,
            "scores.parquet: every score is null",
        ),
    ],
)
def test_refuses(tmp_path: Path, edit: Edit, message: str) -> None:
    with pytest.raises(TableError, match=message):
        _run(tmp_path, edit)
    assert not list(tmp_path.glob("prompts.parquet")) + list(tmp_path.glob("metrics.json"))


def test_the_best_of_each_group_is_kept() -> None:
    scores = [0.4, 0.1, 0.7, 0.7, None, None, 0.2, 0.1, None, 0.9]
    prompts = ["p", "p", "q", "q", "q", "q", "p", "p", "q", "q"]
    table = pd.DataFrame({"prompt_id": prompts, "score": scores}, index=list("abcdefghij"))
    assert list(keep_best(table, TASK, 2).index) == ["b", "c", "e", "h", "j"]  # least toxic
    assert list(keep_best(table, TASKS["sentiment_positive"], 2).index) == ["a", "c", "e", "g", "j"]
    assert list(keep_best(table.iloc[:2], TASK, 1).index) == ["a", "b"]
