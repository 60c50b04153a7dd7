"""What a profile sets of the machines: which checkpoints stay, the time of jobs; fetching ahead."""

import math
import re
import sys
from pathlib import Path

import pytest

from quark.config import load
from quark.config.reading import variants
from quark.core import schemas
from quark.tools.planning import Machine, plan

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
PAPER = "config/scale/paper.yaml"
CHECKPOINT = "results/toxicity/quark/seed-1/iteration-{}/checkpoint"
KEEP_LAST = ("--config", "checkpoints=last")
STAND_IN = """#!{python}
import json, sys
from pathlib import Path
folder = Path(sys.argv[-1])
asked = json.loads((folder / "request.json").read_text())
drawn = [[[5, 6]] * asked["sampling"]["n"] for _ in asked["prompts"]]
(folder / "responses.json").write_text(json.dumps(drawn))
"""


def test_only_the_last_checkpoint_stays(empty):
    last = CHECKPOINT.format(1)
    empty.run(*KEEP_LAST, targets=(last,))
    assert (empty.folder / last).exists()
    assert not (empty.folder / CHECKPOINT.format(0)).exists()
    assert (empty.folder / CHECKPOINT.format(0)).with_name("training.json").exists()
    assert not empty.planned(*KEEP_LAST, targets=(last,))


def test_a_sweep_with_fewer_iterations_keeps_its_own_last(empty):
    sweep = "results/ablations/top-k.csv"
    planned = empty.planned(*KEEP_LAST, targets=(sweep,))
    assert (planned["train"], planned["train_earlier"]) == (2, 1)


def asked(printed: str, rule: str) -> set[int]:
    """The minutes that the jobs of a rule ask for."""
    found = re.findall(rf"^rule {rule}:\n(?:    .*\n)*?    .*runtime=(\d+)", printed, re.MULTILINE)
    return {int(one) for one in found}


PAPERS = load([ROOT / "config/config.yaml", ROOT / PAPER])


def minutes(config, resources, stage: str, shards: int = 1) -> int:
    """Minutes that a job of Quark should ask for on 20 TFLOP/s."""
    (seconds,) = {
        Machine(20_000).seconds(cost) / cost.jobs
        for cost in plan(config, ["toxicity"], resources)
        if (cost.method, cost.stage) == ("quark", stage) and cost.place in ("", "iteration-0")
    }
    return 15 + 2 * math.ceil(seconds / shards / 60)


def test_the_plan_sets_the_time_of_the_jobs(empty):
    options = ("--dry-run", "--config", "tflops=20", "longest=50")
    printed = empty.run(*options, scale=PAPER, targets=(CHECKPOINT.format(2),))
    assert asked(printed, "train") == {minutes(PAPERS, empty.folder / "resources", "train")}
    assert asked(printed, "score") == {50}  # of 60, which the partition does not allow
    assert "needs more time by the plan" not in printed


def test_a_job_that_cannot_end_in_time_is_named_once(empty):
    options = ("--dry-run", "--config", "tflops=20", "longest=5")
    printed = empty.run(*options, scale=PAPER, targets=(CHECKPOINT.format(2),))
    assert printed.count("train of toxicity/quark needs more time by the plan than the") == 1


def test_a_shard_asks_for_its_part_of_the_time(empty):
    options = ("--dry-run", "--set-scatter", "shards=4", "--config", "tflops=20")
    printed = empty.run(*options, scale=PAPER, targets=(CHECKPOINT.format(0),))
    whole = minutes(PAPERS, empty.folder / "resources", "sample")
    part = minutes(PAPERS, empty.folder / "resources", "sample", shards=4)
    assert asked(printed, "sample_shard") == {part}
    assert part < whole


def test_a_variant_has_a_plan_of_its_own(empty):
    """`once` trains 22 times as many sequences in its one iteration as its method in one."""
    own = variants(PAPERS)["toxicity", "quark.exploration.once"]
    once = "results/toxicity/quark.exploration.once/seed-1/iteration-0/checkpoint"
    printed = empty.run("--dry-run", "--config", "tflops=20", scale=PAPER, targets=(once,))
    asked_for = minutes(own, empty.folder / "resources", "train")
    assert asked(printed, "train") == {asked_for}
    assert asked_for > 10 * minutes(PAPERS, empty.folder / "resources", "train")


@pytest.mark.parametrize("task", ["toxicity", "sentiment_positive"])
def test_all_can_be_fetched_ahead(empty, task):
    """For nodes without the network: these rules run first, on a machine that has it."""
    files = (ROOT / "workflow").rglob("*.smk")
    fetching = {
        rule for file in files for rule in re.findall(r"rule (fetch_\w+)", file.read_text())
    }
    fetching |= {"fetch_candidates"}  # `use rule fetch_prompts as fetch_candidates`
    table = (f"results/tables/{task}.csv",)
    everything = empty.planned(scale=PAPER, targets=table)
    planned = empty.planned("--until", *sorted(fetching), scale=PAPER, targets=table)
    assert planned == {rule: everything[rule] for rule in fetching & everything.keys()}


def test_the_profile_names_the_python_that_has_vllm(empty):
    """A script stands in for it."""
    asked = empty.configure("vllm.yaml", {"tasks": {"toxicity": {"vllm": ["base"]}}})
    printed = empty.run("--dry-run", config=(asked,), fails=True)
    assert "names methods, but the profile names no Python that has vLLM" in printed
    program = empty.folder / "stand-in"
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(0o755)
    file = "results/toxicity/base/seed-1/evaluation/nontoxic/nucleus/generations.parquet"
    how = {"config": (asked,), "targets": (file,)}
    empty.run("--config", f"vllm_python={program}", **how)
    drawn = schemas.read(empty.folder / file, schemas.SAMPLES, ["response_ids"])
    assert drawn["response_ids"].to_pylist() == [[5, 6]] * drawn.num_rows
    assert not empty.planned("--config", f"vllm_python={sys.executable}", **how)
    printed = empty.run("--config", "vllm_python=/nowhere", fails=True, **how)
    assert "vllm_python: /nowhere is no program" in printed
