"""Each finished job says how far a run is; a short run says nothing."""

import json
import re
import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
WORKFLOW = Path(__file__).parents[2] / "workflow"
METRICS = "results/toxicity/base/seed-1/evaluation/nontoxic/nucleus/metrics.json"
AGAIN = ("--forcerun", METRICS)


def test_a_line_after_each_job(finished, tmp_path):
    workspace = finished.copy(tmp_path / "run")
    assert "jobs done" not in workspace.run(*AGAIN, targets=(METRICS,))
    rules = workspace.folder / "workflow"
    rules.unlink()
    shutil.copytree(WORKFLOW, rules)
    progress = rules / "rules/progress.smk"
    progress.write_text(re.sub(r"^HEAVY = .*", "HEAVY = 0", progress.read_text(), flags=re.M))
    printed = workspace.run(*AGAIN, targets=(METRICS,))
    assert re.search(r"^0 of 1 jobs done in 0 s, about \d+ s left$", printed, re.M)
    assert re.search(r"^1 of 1 jobs done in \d+ s, about 0 s left$", printed, re.M)
    kept = json.loads((workspace.folder / "results/progress.json").read_text())
    assert kept["line"].startswith("1 of 1 jobs done in ")
