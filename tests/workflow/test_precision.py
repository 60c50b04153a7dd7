"""`precision: auto` in the workflow: decided before any job, carried to every rule, kept."""

import json
import re

import pytest

pytestmark = pytest.mark.slow
PROMPTS = "resources/prompts/handmade"  # a target of one job


def keep(workspace, precision, processor="another class"):
    """What an earlier run left."""
    folder = workspace.folder / "results"
    folder.mkdir()
    choice = {"precision": precision, "asked": "auto", "processor": processor, "measured": {}}
    (folder / "precision.json").write_text(json.dumps(choice))


def kept(workspace):
    return json.loads((workspace.folder / "results/precision.json").read_text())


@pytest.mark.parametrize("value", ["bf16", "fp32"])
def test_every_rule_gets_the_precision_of_the_directory(empty, value):
    keep(empty, value)
    empty.configure("smaller.yaml", {})
    how = {"scale": "config/scale/laptop.yaml", "targets": ["all"]}
    printed = empty.run("--dry-run", "--printshellcmds", **how)
    assert set(re.findall(r'"precision":\s*"(\w+)"', printed)) == {value}
    carried = re.findall(r'quark ([\w-]+) [^\n]*"precision":\s*"', printed)
    assert set(carried) >= {"sample", "train", "learn", "fit", "judge", "predict", "evaluate"}


def test_a_dry_run_decides_and_writes_nothing(empty):
    over = empty.configure("auto.yaml", {"precision": "auto"})
    printed = empty.run("--dry-run", "--printshellcmds", config=(over,))
    assert len(set(re.findall(r'"precision":\s*"(bf16|fp32|auto)"', printed)) - {"auto"}) == 1
    assert '"auto"' not in printed and not (empty.folder / "results").exists()


def test_a_run_keeps_its_precision_until_it_is_named(empty):
    keep(empty, "fp32")
    over = empty.configure("auto.yaml", {"precision": "auto"})
    printed = empty.run(config=(over,), targets=(PROMPTS,))
    assert printed.count("precision: auto stays fp32") == 1
    assert "chosen on another class" in printed and kept(empty)["processor"] == "another class"
    named = empty.configure("named.yaml", {"precision": "fp32"})
    printed = empty.run("--forceall", config=(named,), targets=(PROMPTS,))
    assert "precision: " not in printed
    assert kept(empty) == {"precision": "fp32", "asked": "fp32", "processor": None, "measured": {}}


def test_a_profile_says_what_auto_is_where_jobs_run(empty):
    over = empty.configure("auto.yaml", {"precision": "auto"})
    options = ("--dry-run", "--printshellcmds", "--profile", "profiles/slurm")
    assert '"precision":"bf16"' in empty.run(*options, config=(over,))
    assert '"precision":"fp32"' in empty.run(*options)  # what a file names wins
