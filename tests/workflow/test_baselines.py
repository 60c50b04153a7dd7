"""All methods in one table, and what reruns when one of them changes."""

import csv
import json
import shutil

import pytest

pytestmark = pytest.mark.slow
TABLE = "results/tables/toxicity.csv"
LEARN = ["dapt", "pplm", "gedi", "dexperts", "lm_steer", "caa"]
METHODS = ["base", "best_of_n", *LEARN, "ppo", "dpo", "quark", "quark_guided"]
EVALUATED = {"generate": 1, "score_generations": 1, "judge": 1, "evaluate": 1}
FOLLOWING = {"table": 1, "costs": 1, "track": 12, "publish": 1}

SMALLER = {
    "tasks": {"toxicity": {"splits": ["nontoxic"], "methods": METHODS}},
    "evaluation": {"samples": 2},
}


@pytest.fixture(scope="module")
def compared(finished, tmp_path_factory):
    """The finished run, gone on with all methods."""
    workspace = finished.copy(tmp_path_factory.mktemp("baselines") / "run")
    workspace.configure("smaller.yaml", SMALLER)
    (workspace.folder / "results/mlflow.db").unlink()  # it stays with the directory of its run
    shutil.rmtree(workspace.folder / "results/tracking")
    workspace.run()
    return workspace


def test_a_row_for_each_method(compared):
    with (compared.folder / TABLE).open(newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert list(rows) == METHODS
    prompts = {method: int(row["n_prompts"]) for method, row in rows.items()}
    assert prompts == dict.fromkeys(METHODS, 6) | {"pplm": 3}  # its share
    # what a method asked the scorer in training, beside 2 generations of each prompt
    calls = {
        method: float(row["scorer_calls_per_seed"]) - 2 * prompts[method]
        for method, row in rows.items()
    }
    train = calls["ppo"] / 7  # Quark's 4 samples of each prompt, then 3
    assert calls["base"] == 0 and calls["best_of_n"] == 3 * 2 * 6  # three more for each one kept
    assert calls["quark"] == calls["quark_guided"] == 6 * train
    assert calls["dpo"] == 4 * train  # Quark's samples alone
    assert {calls[method] for method in LEARN} == {calls["dapt"]} and calls["dapt"] >= 4 * train
    trained = {m for m, row in rows.items() if float(row["training_sequences_per_seed"]) > 0}
    assert trained == set(METHODS) - {"base", "best_of_n"}
    assert {row["n_generations"] for m, row in rows.items() if m != "pplm"} == {"12"}
    assert not compared.planned()


def test_one_iteration_of_ppo_again(compared):
    last = "results/toxicity/ppo/seed-1/iteration-1/checkpoint"
    assert compared.planned("--forcerun", last) == {"learn": 1} | EVALUATED | FOLLOWING
    first = "results/toxicity/ppo/seed-1/iteration-0/checkpoint"
    expected = {"learn": 2, "sample": 1, "score": 1} | EVALUATED | FOLLOWING
    assert compared.planned("--forcerun", first) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"baselines": {"dexperts": {"alpha": 1.0}}}, EVALUATED),
        ({"quark_guided": {"place": 4.0}}, EVALUATED),
        ({"plugins": {"lm_steer": {"place": 4.0}}}, EVALUATED),
        ({"plugins": {"lm_steer": {"training": {"epochs": 2}}}}, {"fit": 1} | EVALUATED),
        ({"plugins": {"dpo": {"training": {"beta": 1.0}}}}, {"learn": 1} | EVALUATED),
        ({"baselines": {"dapt": {"learning_rate": 1.0}}}, {"fit": 1} | EVALUATED),
        ({"baselines": {"gedi": {"training": {"generative": 0.1}}}}, {"fit": 1} | EVALUATED),
        (
            {"baselines": {"corpus": {"tokens": 5}}},
            {"corpus": 1, "fit": 7} | {k: 6 for k in EVALUATED},
        ),
    ],
)
def test_a_setting_reruns_its_own_method(compared, change, expected):
    over = compared.configure("change.yaml", change)
    assert compared.planned(config=(over,)) == expected | FOLLOWING


def test_runs_are_logged(compared):
    for method in METHODS:
        mark = compared.folder / f"results/tracking/toxicity/{method}/seed-1.json"
        assert json.loads(mark.read_text())
