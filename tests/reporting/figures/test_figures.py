"""What the figures show, read off the data that is written beside each."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from quark.config.registry import METHODS
from quark.core import schemas
from quark.core.schemas import TableError
from quark.reporting.figures import FIGURES
from quark.reporting.figures.style import LOOKS, look

BASE = {"avg_max_toxicity": 0.6, "output_ppl": 20.0, "dist2": 0.8}
THEIRS = {"avg_max_toxicity": 0.5, "output_ppl": 10.0, "dist2": 0.9}
QUARK = {"avg_max_toxicity": 0.3, "output_ppl": 25.0, "dist2": 0.8}
THEIR_QUARK = {"avg_max_toxicity": 0.2, "output_ppl": 12.0, "dist2": 0.9}


def table(folder: Path) -> Path:
    """Base model and Quark on two splits; the second has no published counterpart, nor fluency."""
    rows: list[dict[str, Any]] = []
    for split, known in (("nontoxic", True), ("challenging", False)):
        for method, ours, theirs in (("base", BASE, THEIRS), ("quark", QUARK, THEIR_QUARK)):
            row: dict[str, Any] = {"task": "toxicity", "split": split, "decoding": "nucleus"}
            row |= {"method": method, "n_prompts": 7, "published_method": method if known else None}
            for name, value in ours.items():
                missing = not known and method == "quark" and name == "output_ppl"
                row[name] = None if missing else value
                row |= {f"{name}_low": value - 0.1, f"{name}_high": value + 0.2}
                row[f"published_{name}"] = theirs[name] if known else None
            rows.append(row)
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "table.csv"


def drawn(kind: str, sources: list[Path], folder: Path) -> tuple[pd.DataFrame, str]:
    """The data beside a figure, and its SVG; both pictures and the data are the same again."""
    for name in ("one", "two"):
        FIGURES[kind](sources, folder / name / "figure.svg")
    files = sorted(file.name for file in (folder / "one").iterdir())
    assert files == ["figure.parquet", "figure.png", "figure.svg"]
    for file in files:
        assert (folder / "one" / file).read_bytes() == (folder / "two" / file).read_bytes()
    assert imread(folder / "one/figure.png").std() > 0.02  # something stands on the page
    return pd.read_parquet(folder / "one/figure.parquet"), (folder / "one/figure.svg").read_text()


def test_tradeoff_has_a_point_for_each_method_with_both_numbers(tmp_path: Path) -> None:
    data, svg = drawn("tradeoff", [table(tmp_path)], tmp_path)
    assert list(zip(data["split"], data["method"], strict=True)) == [
        ("nontoxic", "base"),
        ("nontoxic", "quark"),
        ("challenging", "base"),
    ]
    assert data.loc[1, "avg_max_toxicity_high"] == 0.5
    for text in ("nontoxic", "challenging", "avg. max. toxicity", "output perplexity", "quark"):
        assert f">{text}<" in svg


def test_operating_curves_have_a_line_for_each_setting(tmp_path: Path) -> None:
    tries = ("base", "gedi.weight.10", "gedi.weight.2.5", "ppo.place.2")
    file = tmp_path / "tries.csv"
    with file.open("w", newline="") as opened:
        names = ("task", "split", "decoding", "method", "avg_max_toxicity", "output_ppl")
        writer = csv.writer(opened)
        writer.writerow(names)
        for i, method in enumerate(tries):
            writer.writerow(("toxicity", "validation", "nucleus", method, 0.6 - 0.1 * i, 20 + i))
    data, svg = drawn("operating", [file], tmp_path)
    assert data["value"].dropna().tolist() == ["10", "2.5", "2"]
    for text in ("base", "gedi: weight", "ppo: place", "2.5", "validation"):
        assert f">{text}<" in svg


def test_published_are_ratios_to_the_base_model_of_each_table(tmp_path: Path) -> None:
    data, svg = drawn("published", [table(tmp_path)], tmp_path)
    assert set(data["method"]) == {"quark"} and set(data["split"]) == {"nontoxic"}
    found = data.set_index("metric")
    assert found.loc["avg_max_toxicity", "measured"] == pytest.approx(0.5)
    assert found.loc["avg_max_toxicity", "published"] == pytest.approx(0.4)
    assert found.loc["output_ppl", "measured"] == pytest.approx(1.25)
    assert ">dist-2<" in svg


def test_a_ratio_may_be_nothing_but_not_to_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing measured is the best that can be; the published base model has 0 on some prompts."""
    monkeypatch.setitem(QUARK, "avg_max_toxicity", 0.0)
    monkeypatch.setitem(THEIRS, "output_ppl", "0.00")
    data, _ = drawn("published", [table(tmp_path)], tmp_path)
    assert dict(zip(data["metric"], data["measured"], strict=True)) == {
        "avg_max_toxicity": 0.0,
        "dist2": 1.0,
    }


def test_rewards_are_the_quantiles_of_each_iteration(tmp_path: Path) -> None:
    n = 21
    rewards = [*np.linspace(0, 0.5, n), *np.linspace(0.5, 1, n)]
    columns = {
        "row_id": [f"r{i}" for i in range(2 * n)],
        "prompt_id": ["p"] * 2 * n,
        "iteration": [0] * n + [1] * n,
        "prompt_ids": [[1]] * 2 * n,
        "response_ids": [[2]] * 2 * n,
        "reward": rewards,
        "quantile": [0] * 2 * n,
    }
    schemas.write(tmp_path / "pool.parquet", schemas.POOL, columns)
    data, svg = drawn("rewards", [tmp_path / "pool.parquet"], tmp_path)
    for iteration, low in ((0, 0.0), (1, 0.5)):
        part = data[data["iteration"] == iteration]
        np.testing.assert_allclose(part["reward"], low + 0.5 * part["share"], atol=1e-12)
    assert ">iteration 1<" in svg


def iteration(root: Path, seed: int, number: int, samples: int) -> Path:
    folder = root / f"seed-{seed}/iteration-{number}"
    rows = [(prompt, sample) for prompt in ("p", "q") for sample in range(samples)]
    columns = {
        "row_id": [f"{p}/{s}" for p, s in rows],
        "prompt_id": [p for p, _ in rows],
        "sample": [s for _, s in rows],
        "prompt": ["x"] * len(rows),
        "response": ["a b a b" if s == 0 else "a c d e" for _, s in rows],
        "prompt_ids": [[1]] * len(rows),
        "response_ids": [[2]] * len(rows),
    }
    schemas.write(folder / "samples.parquet", schemas.SAMPLES, columns)
    judged = {name: columns[name] for name in ("row_id", "prompt_id")}
    judged |= {"nll": [np.log(8) * (number + 1)] * len(rows), "tokens": [1] * len(rows)}
    judged["nll"][0] = np.log(1e5)  # above the ceiling, so not counted
    if number and len(rows) > 1:
        judged["tokens"][1], judged["nll"][1] = 0, 0.0  # empty
        judged["nll"][0] = np.log(64)
    schemas.write(folder / "likelihoods.parquet", schemas.LIKELIHOODS, judged)
    scored = {name: columns[name] for name in ("row_id", "prompt_id")}
    scored |= {"score": [None, *[0.25 / (number + 1)] * (len(rows) - 1)]}
    scored |= {"error": ["failed", *[None] * (len(rows) - 1)]}
    schemas.write(folder / "second_scores.parquet", schemas.SCORES, scored)
    pool = {"mean_reward": 0.5 + 0.1 * number, "quantile_mean_reward": [0.9, 0.1]}
    steps = [
        {"step": 2 * number + i, "kl": 0.1 * i, "lm_loss": 3.0, "entropy": 2.0} for i in (0, 1)
    ]
    token_gap = {"best": 1.0, "best_se": 0.2, "worst": None, "worst_se": None} if number else None
    (folder / "pool.json").write_text(json.dumps(pool))
    (folder / "training.json").write_text(json.dumps({"token_gap": token_gap, "steps": steps}))
    return folder


def test_curves_hold_every_iteration_of_every_seed(tmp_path: Path) -> None:
    run = tmp_path / "toxicity/quark"
    folders = [iteration(run, s, i, 1 if i else 3) for s in (1, 2) for i in (0, 1)]
    again = [folder / "second_scores.parquet" for folder in folders if "seed-2" in folder.parts]
    data, svg = drawn("curves", [*folders, *again], tmp_path)

    def of(panel: str, series: str = "samples", seed: int = 2) -> list[float]:
        found = data[(data["panel"] == panel) & (data["series"] == series) & (data["seed"] == seed)]
        return list(found["y"])

    assert of("reward", "scorer") == [0.5, 0.6]
    assert of("reward", "second scorer") == [0.75, 0.875]  # without the failed score
    assert of("reward", "second scorer", seed=1) == []
    assert of("quantile", "1") == [0.1, 0.1]
    assert of("token_gap", "best") == [1.0] and of("token_gap", "worst") == []
    # of one sample of each prompt, as the second iteration has: a b, b a over four words
    assert of("dist", "2") == [0.5, 0.5]
    assert of("dist", "1") == [0.5, 0.5] and of("dist", "3") == [0.5, 0.5]
    np.testing.assert_allclose(of("perplexity"), [8, 64], rtol=1e-12)  # one is not counted
    steps = data[(data["panel"] == "kl") & (data["seed"] == 1)]
    assert list(steps["x"]) == [0, 1, 2, 3]
    assert ">KL to the base model, nats<" in svg


def test_a_method_looks_the_same_among_any_others() -> None:
    among = [*METHODS, "gedi.weight.30", "gedi.weight.45"]
    looks = [tuple(sorted(look(m, among).items())) for m in among]
    assert len(set(looks)) == len(among)
    assert look("quark", ["quark"]) == look("quark", among)
    colours, markers = zip(*LOOKS.values(), strict=True)
    assert len(set(colours)) == len(set(markers)) == len(LOOKS) == 17


def test_what_cannot_be_drawn_is_named(tmp_path: Path) -> None:
    out = tmp_path / "out/figure.svg"
    for kind in ("tradeoff", "published"):
        with pytest.raises(TableError, match=r"gone\.csv: no such file"):
            FIGURES[kind]([tmp_path / "gone.csv"], out)
        with pytest.raises(TableError, match="from one table, not from 2"):
            FIGURES[kind]([table(tmp_path)] * 2, out)
    alone = tmp_path / "alone.csv"
    alone.write_text("".join(table(tmp_path).read_text().splitlines(keepends=True)[:2]))
    with pytest.raises(TableError, match="no row beside the base model's has a published number"):
        FIGURES["published"]([alone], out)
    assert not out.exists()
