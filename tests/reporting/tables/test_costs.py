import json
from pathlib import Path
from typing import Any

import pytest

from quark.core.schemas import TableError
from quark.reporting.tables import cost_table


def cost(root: Path, name: str, **content: Any) -> Path:
    file = root / "toxicity" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def test_costs(tmp_path: Path) -> None:
    files = [
        cost(tmp_path, "quark/seed-1/iteration-0/sample.json", rows=4, tokens=80, seconds=2.5),
        cost(tmp_path, "quark/seed-1/iteration-0/score.json", rows=4, seconds=1.5, note="x"),
        cost(tmp_path, "base/seed-2/evaluation/nontoxic/judge.json", tokens=20, seconds=0),
    ]
    files.append(tmp_path / "models/mle/training.json")  # of no task and no seed
    files[-1].parent.mkdir(parents=True)
    files[-1].write_text(json.dumps({"rows": 1, "tokens": 10, "seconds": 2}))
    cost_table(files, tmp_path / "cost.csv")
    assert (tmp_path / "cost.csv").read_text() == (
        "task,method,seed,stage,rows,tokens,seconds,tokens_per_second\n"
        "toxicity,quark,1,iteration-0/sample,4,80,2.5,32.0\n"
        "toxicity,quark,1,iteration-0/score,4,,1.5,\n"
        "toxicity,base,2,evaluation/nontoxic/judge,,20,0,\n"
        "models,mle,,training,1,10,2,5.0\n"
        "total,,,,9,110,6.0,18.333333333333332\n"
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("quark/seed-1/a.json", {"loss": 1}, "needs a number for rows, tokens or seconds"),
        ("quark/seed-1/a.json", {"rows": "4"}, "needs a number"),
        ("quark/one/a.json", {"rows": 4}, "not of the form TASK/METHOD/seed-S/STAGE.json"),
    ],
)
def test_costs_refuse(tmp_path: Path, name: str, content: dict[str, Any], message: str) -> None:
    with pytest.raises(TableError, match=message):
        cost_table([cost(tmp_path, name, **content)], tmp_path / "cost.csv")
    with pytest.raises(TableError, match="no such file"):
        cost_table([tmp_path / "toxicity/quark/seed-1/none.json"], tmp_path / "cost.csv")
