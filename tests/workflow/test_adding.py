"""docs/adding-a-task.md, adding-a-scorer.md and own-reward.md, followed to a table."""

import csv
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
TABLE = "results/tables/brevity.csv"
TASK = '''
"""Unlearning long words: the scorer tells how short a continuation's words are."""

from quark.metrics.scored import share_above
from quark.tasks.task import Generations, Metric, Published, Task, Values


def by_prompt(made: Generations) -> dict[str, Values]:
    """Share of each prompt's generations whose words are short; (prompts,)."""
    return {"short": share_above(made.scores, made.prompt, made.threshold)}


TASK = Task(
    lambda shortness: shortness,
    by_prompt,
    metrics={"short": Metric(("short",), "short", 3, "share of generations above the threshold")},
    published=Published(table="", splits={}, methods={}, metrics=(), note="there are none"),
)
'''
HEADER = "task,table,split,steer,method,metric,value,source,confidence\n"
SECTION = {
    "tasks": {
        "brevity": {
            "model": "tiny-gpt2",
            "judge": "tiny-gpt2",
            "prompts": "handmade",
            "scorer": "short",
            "splits": ["nontoxic"],
            "methods": ["base", "quark"],
            "override": {"quark": {"iterations": 1}},
        }
    }
}


def add_line(file: Path, after: str, line: str) -> None:
    """Put a line behind the first one that begins with `after`."""
    lines = file.read_text().splitlines(keepends=True)
    at = next(i for i, old in enumerate(lines) if old.startswith(after))
    file.write_text("".join([*lines[: at + 1], f"{line}\n", *lines[at + 1 :]]))


def own_reward() -> tuple[str, str]:
    """The scorer of docs/own-reward.md, and the line that names it."""
    page = (ROOT / "docs/own-reward.md").read_text()
    code, line = re.findall(
        r"^1\. .*?\n\n(.*?)^2\. .*?\n\n(.*?)\n\n", page, re.DOTALL | re.MULTILINE
    )[0]
    return textwrap.dedent(code), textwrap.dedent(line)


@pytest.fixture(scope="module")
def grown(new_workspace, tmp_path_factory):
    """A copy of the repository with one scorer and one task more."""
    workspace = new_workspace(tmp_path_factory.mktemp("adding") / "run")
    workspace.python = Path(sys.executable)  # it reads the package of the copy
    folder = workspace.folder
    for part in ("config", "workflow", "quark"):
        (folder / part).unlink(missing_ok=True)
        shutil.copytree(ROOT / part, folder / part)
    code, line = own_reward()
    (folder / "quark/scorers/short.py").write_text(code)
    add_line(folder / "quark/scorers/__init__.py", "SCORERS", f"    {line}")
    (folder / "quark/tasks/brevity.py").write_text(TASK)
    tasks = folder / "quark/tasks/__init__.py"
    tasks.write_text(tasks.read_text().replace("import repetition,", "import brevity, repetition,"))
    add_line(tasks, "TASKS", '    "brevity": brevity.TASK,')
    whole = folder / "quark/config/whole.py"
    whole.write_text(
        whole.read_text().replace('TaskName = Literal["', 'TaskName = Literal["brevity", "')
    )
    (folder / "config/published/brevity.csv").write_text(HEADER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        schema = ["quark", "schema", "--out", "workflow/schemas/config.schema.json"]
        script = Path(sys.executable).with_name(schema[0])
        subprocess.run([script, *schema[1:]], cwd=folder, env=os.environ, check=True)
        workspace.configure("brevity.yaml", SECTION)
        yield workspace


def test_a_task_and_a_scorer_of_ones_own(grown):
    grown.run(config=("brevity.yaml",), targets=(TABLE, "results/report/brevity.html"))
    with (grown.folder / TABLE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == ["base", "quark"]
    for row in rows:
        assert (row["task"], row["scorer"], row["scorer_version"]) == ("brevity", "short", "1")
        assert 0 <= float(row["short_low"]) <= float(row["short"]) <= float(row["short_high"]) <= 1
        assert row["published_method"] == ""
    assert not (grown.folder / "results/figures/brevity/published.svg").exists()
    assert not grown.planned(config=("brevity.yaml",), targets=(TABLE,))
