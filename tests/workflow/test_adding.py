"""What docs/adding-a-*.md and own-reward.md say, followed to a table by a package of one's own.

The repository stays as it is: the package has one file for a method and a task, and the scorer of
docs/own-reward.md.
"""

import csv
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
TABLE, PAGE = "results/tables/brevity.csv", "results/report/brevity.html"
PACKAGE = '''
"""A task that wants short words, and three methods.

One method lowers the logits of some tokens, one learns from the corpus, one is REINFORCE.
"""

from quark.config.spec import MethodSpec, Part, RoundSettings, learns_in_rounds
from quark.config.types import Section
from quark.metrics.scored import share_above
from quark.tasks.task import Generations, Metric, Task, Values


class Taboo(Section):
    """Settings: which tokens, and by how much."""

    tokens: list[int]
    penalty: float


TABOO = MethodSpec(
    "Taboo",
    decoder="brief:decoder",
    settings=Taboo,
    steering=lambda config: config.plugin("taboo"),
)


def decoder(model, parts, settings, precision):
    import torch

    from quark.generation.decoding import Guided
    from quark.models.lm import load_model

    base = load_model(model, precision)
    shift = torch.zeros(base.vocabulary)
    shift[list(settings.tokens)] = -settings.penalty
    return Guided(base, Shift(shift))


class Unigrams(Section):
    """Settings: how strongly the counts steer."""

    weight: float


UNIGRAMS = MethodSpec(
    "Unigrams",
    parts={"counts": Part("brief:count")},
    decoder="brief:counted",
    settings=Unigrams,
    steering=lambda config: config.plugin("unigrams"),
)


def count(texts, settings, out):
    """log P(token | wanted) - log P(token | unwanted), each token counted once more than found."""
    import torch
    from safetensors.torch import save_file

    from quark.core import files
    from quark.models.lm import load_model
    from quark.training.fitting import Fitted

    counts = torch.ones(2, load_model(texts.model, "fp32").vocabulary)
    for response, label in zip(texts.rows.responses, texts.rows.label, strict=True):
        counts[label, response] += 1
    wanted, unwanted = (counts / counts.sum(1, keepdim=True)).log()
    with files.whole(out) as made:
        made.mkdir()
        save_file({"odds": wanted - unwanted}, made / "odds.safetensors")
    return Fitted(1, {"texts": len(texts.rows.ids)})


def counted(model, parts, settings, precision):
    """base + weight x these log-odds."""
    from safetensors.torch import load_file

    from quark.generation.decoding import Guided
    from quark.models.lm import load_model

    odds = load_file(parts[0] / "odds.safetensors")["odds"]
    return Guided(load_model(model, precision), Shift(settings.weight * odds))


class Shift:
    """A guide that adds the same number to a token's logit everywhere."""

    models, within_base = (), False

    def __init__(self, shift):
        self.shift = shift

    def read(self, prompts, guided=None):
        return self

    def adjust(self, logits):
        return logits + self.shift

    def select(self, rows):
        pass

    def feed(self, ids):
        pass


class Reinforce(RoundSettings):
    """Settings: those of every method in rounds."""


REINFORCE = learns_in_rounds("reinforce", "REINFORCE", Reinforce, learner="brief:learner")


def learner(given, settings):
    """-sum A log p: the reward above its mean weighs each response (Williams 1992)."""
    import torch

    from quark.training.actor import Actor
    from quark.training.rounds import rows_together, train_round

    actor, lengths = Actor(given.policy, given.min_new_tokens), given.rows.lengths
    advantage = torch.from_numpy(given.reward - given.reward.mean()).float()
    rows = given.rows._replace(of_tokens={"advantage": advantage.repeat_interleave(lengths)})

    def loss(part):
        hidden = actor.hidden(part, given.precision, given.cache)
        return {"loss": -(part.of_tokens["advantage"] * actor.logprob(hidden, part, "fp32")).sum()}

    return train_round(
        actor,
        given,
        settings,
        rows,
        loss,
        summary={"kl": 0.0},
        weights=[1] * len(rows.ids),
        micro_batch=rows_together(given, settings),
    )


def by_prompt(made: Generations) -> dict[str, Values]:
    """Share of each prompt's generations whose words are short; (prompts,)."""
    return {"short": share_above(made.scores, made.prompt, made.threshold)}


BREVITY = Task(
    lambda shortness: shortness,
    by_prompt,
    metrics={"short": Metric(("short",), "short", 3, "share of generations above the threshold")},
)
'''
POINTS = """[quark.methods]
taboo = brief:TABOO
unigrams = brief:UNIGRAMS
reinforce = brief:REINFORCE
[quark.tasks]
brevity = brief:BREVITY
[quark.scorers]
short = short:Short
"""
LOWERED = list(range(50, 150))
ROUNDS = {"iterations": 2, "samples": 2, "epochs": 1, "batch": 8, "warmup_steps": 0}
ROUNDS |= {"learning_rate": 1e-2, "token_learning_rate": 1e-2, "betas": [0.9, 0.98], "eps": 1e-8}
ROUNDS |= {"max_grad_norm": None, "gradient_checkpointing": False, "trained_layers": 0}


def configured(**taboo):
    """Base model, Quark and the package's methods on the package's task, by its scorer."""
    task = {
        "model": "tiny-gpt2",
        "judge": "tiny-gpt2",
        "prompts": "handmade",
        "scorer": "short",
        "splits": ["nontoxic"],
        "methods": ["base", "taboo", "unigrams", "reinforce", "quark"],
        "override": {"quark": {"iterations": 1}},
    }
    plugins = {
        "taboo": {"penalty": 100.0, **taboo},
        "unigrams": {"weight": 1.0},
        "reinforce": {"training": ROUNDS, "place": 1.0},
    }
    return {"tasks": {"brevity": task}, "plugins": plugins}


def own_reward() -> str:
    """The scorer of docs/own-reward.md, whose second step names file and class."""
    page = (ROOT / "docs/own-reward.md").read_text()
    file, code, line = re.findall(
        r"^1\. `(.*?)`:\n\n(.*?)^2\. .*?\n\n(.*?)\n\n", page, re.DOTALL | re.MULTILINE
    )[0]
    module, name = re.findall(r'"short": "(\S+):(\w+)",', line)[0]
    assert file == f"{module.replace('.', '/')}.py" and f"class {name}:" in code
    return textwrap.dedent(code)


@pytest.fixture(scope="module")
def with_package(new_workspace, tmp_path_factory):
    """An unchanged repository, and an installed package that adds to it."""
    folder = tmp_path_factory.mktemp("package")
    (folder / "brief.py").write_text(PACKAGE)
    (folder / "short.py").write_text(own_reward())
    about = folder / "brief-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: brief\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(POINTS)
    workspace = new_workspace(tmp_path_factory.mktemp("with") / "run")
    workspace.python = Path(sys.executable)  # its jobs look for packages themselves
    workspace.configure("untold.yaml", configured())
    workspace.configure("brevity.yaml", configured(tokens=LOWERED))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        yield workspace


def tokens(folder, method):
    """All tokens that a method generated."""
    made = folder / f"results/brevity/{method}/seed-1/evaluation/nontoxic/nucleus"
    responses = pd.read_parquet(made / "generations.parquet")["response_ids"]
    return {int(token) for ids in responses for token in ids}


def quark(workspace, verb):
    """What a verb prints in a workspace."""
    layers = [f"--config={name}" for name in ("config/scale/test.yaml", "brevity.yaml")]
    script = Path(sys.executable).with_name("quark")
    done = subprocess.run(
        [script, verb, *layers], cwd=workspace.folder, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_a_method_a_task_and_a_scorer_of_ones_own(with_package):
    told = {"config": ("brevity.yaml",), "targets": (TABLE, PAGE)}
    refused = with_package.run("--dry-run", fails=True, **told | {"config": ("untold.yaml",)})
    assert "plugins.taboo.tokens: Field required" in refused
    with_package.run(**told)
    folder = with_package.folder
    with (folder / TABLE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == ["base", "taboo", "unigrams", "reinforce", "quark"]
    for row in rows:
        assert (row["task"], row["scorer"], row["scorer_version"]) == ("brevity", "short", "1")
        assert 0 <= float(row["short_low"]) <= float(row["short"]) <= float(row["short_high"]) <= 1
        assert row["published_method"] == ""
    drawn = {name: tokens(folder, name) for name in ("base", "taboo")}
    assert drawn["taboo"] and not drawn["taboo"] & set(LOWERED) and drawn["base"] & set(LOWERED)
    assert not (folder / "results/figures/brevity/published.svg").exists()
    for method in ("taboo", "unigrams", "reinforce"):
        assert (folder / f"results/tracking/brevity/{method}/seed-1.json").is_file()
        for made in (PAGE, "results/figures/brevity/tradeoff.svg"):
            assert method in (folder / made).read_text()
        for verb in ("plan", "status"):
            printed = quark(with_package, verb)
            assert method in printed and "brevity" in printed
    fitted = json.loads((folder / "results/brevity/part-counts/seed-1/training.json").read_text())
    assert fitted["rows"] == fitted["texts"] > 0
    rounds = folder / "results/brevity/reinforce/seed-1"
    assert not (rounds / "iteration-0/samples.parquet").exists()  # they are Quark's
    about = [json.loads((rounds / f"iteration-{i}/training.json").read_text()) for i in (0, 1)]
    drawn = [rounds.parents[1] / "quark/seed-1/iteration-0", rounds / "iteration-1"]
    sizes = [len(pd.read_parquet(folder / "samples.parquet")) for folder in drawn]
    assert [each["rows"] for each in about] == sizes and sizes[0] > sizes[1] > 0
    assert all(0 <= each["mean_reward"] <= 1 for each in about)
    steps = [
        json.loads((rounds / f"iteration-{i}/checkpoint/checkpoint.json").read_text())["step"]
        for i in (0, 1)
    ]
    assert steps[1] > steps[0] > 0
    assert not with_package.planned(**told)
