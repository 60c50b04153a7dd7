"""Ablations: variants of Quark beside it, sharing what they would only make again."""

import csv

import pytest

pytestmark = pytest.mark.slow
TABLE = "results/tables/ablations.csv"
EVALUATED = {"generate": 1, "score_generations": 1, "judge": 1, "evaluate": 1}


def times(count, jobs):
    return {rule: count * number for rule, number in jobs.items()}


def test_a_sweep_shares_what_is_not_varied(finished):
    swept = {"results/ablations/quantiles.csv": 1, "results/ablations/top-k.csv": 1}
    # other quantiles: the samples of iteration 0 are Quark's; iteration 1 follows another training
    trained = {"quantize": 2, "train": 2, "sample": 1, "score": 1}
    first, second = swept
    assert finished.planned(targets=(first,)) == trained | EVALUATED | {"ablation": 1}
    # another top-k: nothing but the base model is shared; it has one iteration here
    anew = {"quantize": 1, "train": 1, "sample": 1, "score": 1}
    assert finished.planned(targets=(second,)) == anew | EVALUATED | {"ablation": 1}


@pytest.fixture(scope="module")
def swept(finished, tmp_path_factory):
    """The finished run, gone on with the ablation of the reward tokens."""
    workspace = finished.copy(tmp_path_factory.mktemp("ablations") / "run")
    workspace.configure("one.yaml", {"ablations": {"quantiles": None, "top-k": None}})
    workspace.run(targets=(TABLE,), config=("one.yaml",))
    return workspace


def test_a_table_and_a_figure(swept):
    with (swept.folder / TABLE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [row["method"] for row in rows]
    assert names[:2] == ["base", "quark"]
    assert sorted(names[2:]) == ["quark.tokens.by-chance", "quark.tokens.none"]
    assert {row["ablation"] for row in rows} == {"tokens"}
    with (swept.folder / "results/tables/toxicity.csv").open(newline="") as file:
        main = {row["method"]: row for row in csv.DictReader(file)}
    for row in rows[:2]:  # the main run's own numbers
        assert row["avg_max_toxicity"] == main[row["method"]]["avg_max_toxicity"]
    calls = {row["method"]: row["scorer_calls_per_seed"] for row in rows}
    assert len({calls[name] for name in names[1:]}) == 1  # a shared sample counts for each
    for kind in ("svg", "png"):
        assert (swept.folder / f"results/figures/ablations/tokens.{kind}").stat().st_size
    assert not swept.planned(targets=(TABLE,), config=("one.yaml",))


def test_one_variant_again_leaves_the_others_alone(swept):
    change = {"ablations": {"tokens": {"variants": {"none": {"quark": {"samples": 3}}}}}}
    swept.configure("more.yaml", change)
    planned = swept.planned(targets=(TABLE,), config=("one.yaml", "more.yaml"))
    again = {"sample": 1, "score": 1, "quantize": 1, "train": 1}
    assert planned == again | EVALUATED | {"ablation": 1, "sweep": 1, "ablations": 1}
