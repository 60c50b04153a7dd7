"""Tuning: tries on validation prompts, which share all training that they leave as it is."""

import csv

import pytest

pytestmark = pytest.mark.slow
TABLE = "results/tuning/toxicity.csv"
EVALUATED = ("generate", "score_generations", "judge", "evaluate")
TRIES = {
    "quark": {"quantiles": [4]},
    "quark_guided": None,
    "baselines": {
        "gedi": {"weight": [1, 1000], "training": {"scale_learning_rate": [0.5]}},
        "dexperts": None,
        "ppo": None,
    },
}


@pytest.fixture(scope="module")
def workspace(finished, tmp_path_factory):
    """The finished run of base model and Quark, with other tries than the default's."""
    workspace = finished.copy(tmp_path_factory.mktemp("tuning") / "run")
    methods = {"tasks": {"toxicity": {"methods": ["base", "quark", "gedi"]}}}
    workspace.configure("tries.yaml", {"tuning": {"toxicity": {"tries": TRIES}}} | methods)
    return workspace


def test_only_what_a_try_changes_is_made(workspace):
    planned = workspace.planned(targets=(TABLE,), config=("tries.yaml",))
    assert planned == {
        **{"quantize": 2, "train": 2, "sample": 1, "score": 1},  # of quark.quantiles.4
        **{"corpus": 1, "fit": 1, "fit_variant": 1},  # both weights share their fit
        **dict.fromkeys(EVALUATED, 5),  # base and four tries on validation prompts
        **{"tries": 1, "tuning": 1, "operating": 1},
    }


def test_a_table_and_a_figure(workspace):
    workspace.run(targets=(TABLE,), config=("tries.yaml",))
    with (workspace.folder / TABLE).open(newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    tried = [
        "gedi.weight.1",
        "gedi.weight.1000",
        "gedi.scale_learning_rate.0.5",
        "quark.quantiles.4",
    ]
    assert sorted(rows) == sorted(["base", *tried])
    assert {row["split"] for row in rows.values()} == {"validation"}
    assert rows["base"]["of_base"] == "1.0" and rows["base"]["chosen"] == "0"
    settings = [rows[f"gedi.weight.{weight}"]["output_ppl"] for weight in (1, 1000)]
    assert settings[0] != settings[1]
    assert (workspace.folder / "results/figures/tuning/toxicity.svg").stat().st_size
    assert workspace.planned(targets=(TABLE,), config=("tries.yaml",)) == {}
