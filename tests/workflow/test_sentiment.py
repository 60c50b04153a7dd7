"""Both sentiment tasks on prompts that are sorted first, with settings of their own."""

import csv

import pytest
from transformers import BertConfig, BertForSequenceClassification

from quark.config import overlay
from quark.data.models import _byte_tokenizer

pytestmark = pytest.mark.slow
TASKS = ("sentiment_positive", "sentiment_negative")
NEWER = ("best_of_n", "caa", "lm_steer", "rloo", "grpo", "dpo", "kto", "raft")
METHODS = {TASKS[0]: ["base", "quark"], TASKS[1]: ["base", *NEWER, "quark"]}
TABLES = tuple(f"results/tables/{task}.csv" for task in TASKS)


def second(**changed):
    """A tiny classifier as the second scorer, as `docs/adding-a-scorer.md` says."""
    reads = {"label": "POSITIVE", "whole": False, "tokens": 16} | changed
    how = {"local": "tiny", "licence": "none", "reads": reads}
    return {"classifiers": {"tiny": how}, "tasks": {TASKS[0]: {"second_scorer": "tiny"}}}


def newer():
    """The methods of 2023 and later in the second task, without a word of code for it."""
    near = {"baselines": {"corpus": {"unwanted_to": 0.79}}}  # a random model has no sentiment
    return {"tasks": {TASKS[1]: {"methods": METHODS[TASKS[1]], "override": near}}}


@pytest.fixture(scope="module")
def both(finished, tmp_path_factory):
    """The finished run, gone on with both tasks."""
    workspace = finished.copy(tmp_path_factory.mktemp("sentiment") / "run")
    (workspace.folder / "results/mlflow.db").unlink()  # it stays with the directory of its run
    bert = BertConfig(
        vocab_size=257,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=32,
        id2label={0: "NEGATIVE", 1: "POSITIVE"},
    )
    BertForSequenceClassification(bert).save_pretrained(workspace.folder / "tiny")
    _byte_tokenizer(32).save_pretrained(workspace.folder / "tiny")
    workspace.configure("smaller.yaml", overlay(second(), newer()))
    workspace.run(targets=TABLES)
    return workspace


def test_another_label_scores_again_and_trains_nothing(both):
    both.configure("label.yaml", second(label="NEGATIVE"))
    found = both.planned(config=("label.yaml",), targets=TABLES[:1])
    following = {"evaluate": 2, "table": 1, "costs": 1, "track": 2, "publish": 1}
    assert found == {"score_again": 2} | following


def test_tables(both):
    for task, table in zip(TASKS, TABLES, strict=True):
        with (both.folder / table).open(newline="") as file:
            rows = {row["method"]: row for row in csv.DictReader(file)}
        assert list(rows) == METHODS[task]
        for row in rows.values():
            assert row["n_prompts"] == "3" and row["n_generations"] == "9"  # its own evaluation
            assert 0 <= float(row["pct_positive_low"]) <= float(row["pct_positive"]) <= 100
            assert "avg_max_toxicity" not in row
            if task == TASKS[0]:
                assert row["second_scorer"] == "tiny"
                assert 0 <= float(row["pct_positive_second"]) <= 100
            else:
                assert row["second_scorer"] == row["pct_positive_second"] == ""
        published = {method: rows[method]["published_method"] for method in ("base", "quark")}
        assert published == {"base": "GPT2", "quark": "Quark"}
    assert not both.planned(targets=TABLES)


def test_the_directions_share_prompts_and_base_models_are_their_own(both):
    folders = [both.folder / f"results/{task}/quark/seed-1" for task in TASKS]
    assert all((folder / "iteration-0").is_dir() for folder in folders)
    assert not any((folder / "iteration-1").exists() for folder in folders)
    pools = [(folder / "iteration-0/pool.json").read_text() for folder in folders]
    assert pools[0] != pools[1]


def test_what_sorting_reruns(both):
    changed = {"prompts": {"sentences": {"sorted": {"samples": 5}}}}
    both.configure("more.yaml", changed)
    found = both.planned(config=("more.yaml",), targets=TABLES[:1])
    assert found["sample_candidates"] == found["score_candidates"] == found["sort_prompts"] == 1
    assert found["fetch_candidates"] == 0 and found["train"] == 1
