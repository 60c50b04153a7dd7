"""The repetition task: models trained further, several decodings, predictions of real text."""

import csv
from collections import Counter
from importlib.util import find_spec

import pytest

pytestmark = pytest.mark.slow
TABLE = "results/tables/repetition.csv"
METHODS = ["base", "simctg", "quark_unlikelihood"]


@pytest.fixture(scope="module")
def made(finished, tmp_path_factory):
    """The finished run, gone on with the task."""
    workspace = finished.copy(tmp_path_factory.mktemp("repetition") / "run")
    (workspace.folder / "results/mlflow.db").unlink()  # it stays with the directory of its run
    workspace.run(targets=(TABLE,))
    return workspace


def test_a_row_for_each_method_and_decoding(made):
    with (made.folder / TABLE).open(newline="") as file:
        rows = {(row["decoding"], row["method"]): row for row in csv.DictReader(file)}
    plain = METHODS[:2]  # contrastive search is of models without reward tokens
    greedy = [("greedy", method) for method in METHODS]
    assert list(rows) == greedy + [("contrastive", method) for method in plain]
    for row in rows.values():
        assert 0 <= float(row["diversity"]) <= 1 and 0 <= float(row["wrep"]) <= float(row["rep"])
        assert float(row["ppl_low"]) <= float(row["ppl"]) <= float(row["ppl_high"])
        assert not row["published_method"]  # the paper's numbers are of another split
    for method in plain:  # what real text is predicted to be is none of a decoding's business
        assert rows["greedy", method]["ppl"] == rows["contrastive", method]["ppl"]
    trained = {m: float(rows["greedy", m]["training_sequences_per_seed"]) for m in METHODS}
    # plainly, then against repetition, then Quark's 16 sequences
    assert 0 < trained["base"] == trained["simctg"]
    assert trained["quark_unlikelihood"] == 2 * trained["base"] + 16
    assert not made.planned(targets=(TABLE,))


@pytest.mark.parametrize(("tokens", "predicted"), [(3, 0), (13, 3)])
def test_another_decoding_trains_nothing(made, tokens, predicted):
    """What is predicted of real texts is as long as the longest generations."""
    how = {"temperature": 1.0, "top_k": 5, "top_p": 1.0, "min_new_tokens": 2}
    decoding = {"few": how | {"max_new_tokens": tokens}}
    change = {"tasks": {"repetition": {"override": {"evaluation": {"decoding": decoding}}}}}
    over = made.configure("few.yaml", change)
    expected = dict.fromkeys(("generate", "score_generations", "judge"), 3)
    expected |= {"evaluate": 3 + (5 if predicted else 0), "predict": predicted}
    following = {"table": 1, "costs": 1, "track": 3, "publish": 1}
    assert made.planned(targets=(TABLE,), config=(over,)) == Counter(expected) + Counter(following)


def test_mauve_without_its_package_stops_before_any_job(made, monkeypatch):
    if find_spec("mauve"):
        pytest.skip("the extra is installed")
    how = {"model": "tiny-gpt2", "tokens": 16, "buckets": None, "scaling": 5, "seed": 25}
    over = made.configure("mauve.yaml", {"evaluation": {"mauve": how}})
    printed = made.run("--dry-run", targets=(TABLE,), config=(over,), fails=True)
    assert "evaluation.mauve needs the package mauve-text" in printed


def test_another_model_of_a_method_reruns_what_starts_from_it(made):
    change = {"models": {"simctg": {"finetuned": {"margin": 0.1}}}}
    over = made.configure("margin.yaml", change)
    one = dict.fromkeys(("generate", "score_generations", "judge", "evaluate"), 2)
    expected = {"finetune_model": 1, "predict": 1, "table": 1, "costs": 1, "track": 3, "publish": 1}
    assert made.planned(targets=(TABLE,), config=(over,)) == expected | one
