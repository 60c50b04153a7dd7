"""The profiles name rules that exist, and give GPUs to the same rules."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RULES = {
    found[2] or found[1]
    for file in (ROOT / "workflow").rglob("*.smk")
    for found in re.finditer(
        r"^\s*(?:use )?rule (\w+)(?: as (\w+))?(?: with)?:", file.read_text(), re.MULTILINE
    )
}
PROFILES = {
    name: yaml.safe_load((ROOT / f"profiles/{name}/config.yaml").read_text())
    for name in ("slurm", "gpus")
}


def test_the_rules_are_found() -> None:
    assert {"sample", "sample_shard", "score_again", "train", "generate"} <= RULES


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_names_rules_that_exist(name: str) -> None:
    assert set(PROFILES[name]["set-resources"]) <= RULES


def test_a_cluster_must_say_how_many_cores_a_job_has(empty) -> None:
    """Else Snakemake submits a job with one core, and counts the node's cores in the job."""
    printed = empty.run("--executor", "slurm", "--jobs", "1", fails=True)
    assert "config has no `threads`, the cores of a job" in printed


def test_both_profiles_give_a_gpu_to_the_same_rules() -> None:
    given = [
        {rule: each["gpu"] for rule, each in profile["set-resources"].items() if "gpu" in each}
        for profile in PROFILES.values()
    ]
    assert given[0] == given[1]


@pytest.mark.parametrize("name", PROFILES)
def test_earlier_iterations_train_on_the_same_machine_as_the_last(name: str) -> None:
    given = PROFILES[name]["set-resources"]
    assert given["train_earlier"] == given["train"]
    assert given["learn_earlier"] == given["learn"]


@pytest.mark.parametrize("name", PROFILES)
def test_every_rule_that_takes_a_jobs_cores_is_in_a_profile(name: str) -> None:
    """But those that fetch, and the benchmark."""
    rules = set()
    for file in (ROOT / "workflow/rules").glob("*.smk"):
        for part in re.split(r"^\s*rule ", file.read_text(), flags=re.MULTILINE)[1:]:
            if re.search(r"threads: .*CORES", part):
                rules.add(part.split(":")[0])
    alone = {rule for rule in rules if rule.startswith("fetch_")} | {"measure"}
    assert rules - alone <= PROFILES[name]["set-resources"].keys()


def test_a_scorer_gets_a_gpu_only_if_it_is_a_classifier() -> None:
    scoring = PROFILES["slurm"]["set-resources"]["score"]
    for classifier, expected in ((["toxic-bert"], (1, "gpu")), ([], (0, "cpu"))):
        names = {"input": {"classifier": classifier}}
        got = tuple(eval(scoring[key], {}, names) for key in ("gpu", "slurm_partition"))
        assert got == expected
