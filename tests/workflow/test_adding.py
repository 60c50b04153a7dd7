"""docs/adding-a-task.md, adding-a-scorer.md and own-reward.md, followed to a table.

And docs/adding-a-method.md, in a package of one file that is installed beside this one.
"""

import csv
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd
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


# --------------------------------------------------------- a method and a scorer of another package
PACKAGE = '''
"""A decoder that lowers the logits of some tokens, and a scorer that counts letters."""

import numpy as np

from quark.config.registry import MethodSpec
from quark.config.types import Section


class Taboo(Section):
    tokens: list[int]
    penalty: float


TABOO = MethodSpec(
    "Taboo",
    decoder="taboo:decoder",
    settings=Taboo,
    steering=lambda config: config.plugin("taboo"),
)


class Brief:
    name, version = "brief", "3"

    def score(self, prompts, responses):
        return np.array([1 / (1 + len(text)) for text in responses])


def decoder(model, parts, settings, precision):
    from quark.decoding import Guided
    from quark.lm import load_model

    class Guide:
        models, within_base = (), False

        def read(self, prompts, guided=None):
            return self

        def adjust(self, logits):
            logits = logits.clone()
            logits[:, list(settings.tokens)] -= settings.penalty
            return logits

        def select(self, rows):
            pass

        def feed(self, ids):
            pass

    return Guided(load_model(model, precision), Guide())
'''
POINTS = """[quark.methods]
taboo = taboo:TABOO
[quark.scorers]
brief = taboo:Brief
"""
LOWERED = list(range(50, 150))


@pytest.fixture(scope="module")
def with_package(new_workspace, tmp_path_factory):
    """An unchanged repository, and a package on the path that adds to it."""
    folder = tmp_path_factory.mktemp("package")
    (folder / "taboo.py").write_text(PACKAGE)
    about = folder / "taboo-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: taboo\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(POINTS)
    workspace = new_workspace(tmp_path_factory.mktemp("with") / "run")
    workspace.python = Path(sys.executable)  # jobs that look for packages themselves
    task = {"methods": ["base", "taboo"], "scorer": "brief"}
    asked = {"tasks": {"toxicity": task}, "plugins": {"taboo": {"penalty": 100.0}}}
    workspace.configure("untold.yaml", asked)
    asked["plugins"]["taboo"]["tokens"] = LOWERED
    workspace.configure("taboo.yaml", asked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        yield workspace


def tokens(folder, method):
    """All tokens that a method generated."""
    made = folder / f"results/toxicity/{method}/seed-1/evaluation/nontoxic/nucleus"
    responses = pd.read_parquet(made / "generations.parquet")["response_ids"]
    return {int(token) for ids in responses for token in ids}


def quark(workspace, *arguments):
    """What a verb prints in a workspace."""
    script = Path(sys.executable).with_name("quark")
    done = subprocess.run(
        [script, *arguments], cwd=workspace.folder, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_a_package_adds_a_method_and_a_scorer(with_package):
    table, page = "results/tables/toxicity.csv", "results/report/toxicity.html"
    refused = with_package.run("--dry-run", fails=True, config=("untold.yaml",), targets=(table,))
    assert "plugins.taboo.tokens" in refused and "required" in refused
    with_package.run(config=("taboo.yaml",), targets=(table, page))
    folder = with_package.folder
    with (folder / table).open(newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["base", "taboo"]
    assert {(row["scorer"], row["scorer_version"]) for row in rows.values()} == {("brief", "3")}
    drawn = {name: tokens(folder, name) for name in ("base", "taboo")}
    assert drawn["taboo"] and not drawn["taboo"] & set(LOWERED) and drawn["base"] & set(LOWERED)
    assert (folder / "results/tracking/toxicity/taboo/seed-1.json").is_file()
    assert "taboo" in (folder / page).read_text()
    assert "taboo" in (folder / "results/figures/toxicity/tradeoff.svg").read_text()
    configured = [f"--config={name}" for name in ("config/scale/test.yaml", "taboo.yaml")]
    assert "taboo" in quark(with_package, "plan", *configured)
    assert "taboo" in quark(with_package, "status", *configured)
    assert not with_package.planned(config=("taboo.yaml",), targets=(table,))
