"""What Snakemake would run after a change: all that depends on it, and nothing else."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from quark.config import load
from quark.tools.planning import plan

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
CHECKPOINT = "results/toxicity/quark/seed-1/iteration-{}/checkpoint"
# The jobs of one evaluated method on one split, and those that every change of a number ends with.
EVALUATED = {"generate": 1, "score_generations": 1, "judge": 1, "evaluate": 1}
TABLE = {"table": 1, "costs": 1, "track": 2, "publish": 1}


def times(count, jobs):
    return {rule: count * number for rule, number in jobs.items()}


def test_after_a_finished_run_there_is_nothing_to_do(finished):
    assert "Nothing to be done" in finished.run("--dry-run")


def test_evaluation_prompts_rerun_the_evaluation_only(finished):
    over = finished.configure("prompts.yaml", {"evaluation": {"prompts": 3}})
    assert finished.planned(config=(over,)) == times(2, EVALUATED) | TABLE


def test_the_learning_rate_reruns_training_and_what_follows(finished):
    over = finished.configure("rate.yaml", {"quark": {"training": {"learning_rate": 0.5}}})
    following = {"sample": 1, "score": 1, "quantize": 1}  # iteration 1; iteration 0's stay
    expected = {"train": 2} | following | EVALUATED | TABLE
    assert finished.planned(config=(over,)) == expected


def test_threads_and_memory_rerun_nothing(finished):
    options = ("--set-threads", "train=1", "--set-resources", "train:mem_mb=9000")
    assert not finished.planned(*options)


def test_a_forced_training_reruns_what_follows_only(finished):
    last = CHECKPOINT.format(1)
    expected = {"train": 1} | EVALUATED | TABLE
    assert finished.planned("--forcerun", last) == expected


def test_a_forced_track_logs_all_runs_anew(finished):
    assert finished.planned("--forcerun", "track") == {"track": 2, "publish": 1}


def test_guided_quark_decodes_with_quarks_policy(finished):
    """Whatever PPO's number of iterations: it needs its own evaluation and no training."""
    task = {"methods": ["base", "quark", "quark_guided"]}
    change = {"tasks": {"toxicity": task}, "baselines": {"ppo": {"iterations": 5}}}
    over = finished.configure("guided.yaml", change)
    assert finished.planned(config=(over,)) == EVALUATED | TABLE | {"track": 3}


def test_another_seed_leaves_the_first_alone(finished):
    over = finished.configure("seeds.yaml", {"seeds": [1, 2]})
    planned = finished.planned(config=(over,))
    stages = dict.fromkeys(("sample", "score", "quantize", "train"), 2)
    assert planned == stages | times(2, EVALUATED) | TABLE | {"track": 4}


# ------------------------------------------------------------------------ faults before any job
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            {"quark": {"training": {"lerning_rate": 0.1}}},
            "quark.training.lerning_rate = 0.1: no such key; did you mean "
            "quark.training.learning_rate?",
        ),
        # the default has this key too: the file laid over it is to blame
        ({"quark": {"samples": 0}}, "quark.samples = 0: Input should be greater than"),
    ],
)
def test_a_fault_in_the_configuration_stops_before_any_job(empty, content, expected):
    over = empty.configure("over.yaml", content)
    printed = empty.run(config=(over,), fails=True)
    assert f"{empty.folder}/over.yaml: {expected}" in printed
    assert "rule " not in printed and not (empty.folder / "results").exists()


def test_a_key_that_stands_twice_stops_before_any_job(empty):
    (empty.folder / "over.yaml").write_text("quark: {samples: 3}\nquark: {samples: 4}")
    printed = empty.run("--dry-run", config=("over.yaml",), fails=True)
    assert f"{empty.folder}/over.yaml, line 2: not valid YAML: quark stands here and" in printed


def test_values_on_the_command_line_are_typed_as_in_a_file(empty):
    options = ("--config", "seeds=[1,2]", "quark={training: {learning_rate: 1e-4}}")
    assert empty.planned(*options)["train"] == 4  # iterations times seeds


def test_an_unknown_scorer_stops_before_any_job(empty):
    over = empty.configure("over.yaml", {"tasks": {"toxicity": {"scorer": "profanity"}}})
    printed = empty.run(config=(over,), fails=True)
    assert "no scorer 'profanity'; did you mean 'profanity-check'?" in printed
    assert "rule " not in printed


def test_a_service_needs_its_key_before_any_job(empty, monkeypatch):
    over = empty.configure("over.yaml", {"tasks": {"toxicity": {"scorer": "perspective"}}})
    monkeypatch.delenv("PERSPECTIVE_API_KEY", raising=False)
    assert "export PERSPECTIVE_API_KEY=" in empty.run("--dry-run", config=(over,), fails=True)
    monkeypatch.setenv("PERSPECTIVE_API_KEY", "not-to-be-printed")
    printed = empty.run("--dry-run", "--printshellcmds", config=(over,))
    assert printed.count("--cache resources/scores.sqlite") == 2 + 2  # iterations and evaluations
    assert "not-to-be-printed" not in printed


def test_a_dry_run_plans_every_job_once_and_makes_nothing(empty):
    stages = dict.fromkeys(("sample", "score", "quantize", "train"), 2)
    fetched = {"fetch_model": 1, "fetch_prompts": 1}
    assert empty.planned() == fetched | stages | times(2, EVALUATED) | TABLE
    assert not (empty.folder / "results").exists()


@pytest.mark.parametrize("task", ["toxicity", "sentiment_positive", "repetition"])
def test_the_estimate_counts_the_jobs_of_a_dry_run_at_paper_scale(empty, task):
    scale = "config/scale/paper.yaml"
    planned = empty.planned(scale=scale, targets=[f"results/tables/{task}.csv"])
    others = {rule for rule in planned if rule.startswith("fetch_")} | set(TABLE)
    layers = [ROOT / "config/config.yaml", ROOT / scale, empty.folder / "smaller.yaml"]
    counted = sum(cost.jobs for cost in plan(load(layers), [task], empty.folder / "resources"))
    assert counted == planned.total() - sum(planned[rule] for rule in others) > 150


def test_a_page_is_planned_at_paper_scale(empty):
    """Its settings hold a pattern with braces, which are no wildcards."""
    scale, target = "config/scale/paper.yaml", "results/report/toxicity.html"
    assert empty.planned(scale=scale, targets=[target])["page"] == 1


def test_a_catalog_draws_the_graph_of_the_rules(tmp_path):
    """As the workflow catalog does: from a folder that has nothing but a configuration."""
    (tmp_path / "config").symlink_to((ROOT / ".test/config").resolve())
    command = [sys.executable, "-m", "snakemake", "-s", ROOT / "workflow/Snakefile", "--rulegraph"]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    rules = set(re.findall(r'label = "(\w+)', made.stdout))
    assert {"sample", "score", "quantize", "train", "generate", "evaluate", "page"} <= rules
    assert yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]


@pytest.mark.parametrize(
    "command", [["snakemake", "--lint"], ["snakefmt", "--check", "workflow", "Snakefile"]]
)
def test_the_rules_are_clean(command):
    program = Path(sys.executable).with_name(command[0])
    found = subprocess.run(
        [program, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
