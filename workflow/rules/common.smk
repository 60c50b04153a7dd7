"""Functions of the rules: the checked configuration, and which files a target needs."""

import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from quark import config as configuration
from quark import settings
from quark.scorers import ScorerError, check_scorer

CONDA = "../envs/quark.yaml"
ITERATION = "results/{task}/quark/seed-{seed}/iteration-{iteration}"
EVALUATION = "results/{task}/{method}/seed-{seed}/evaluation/{split}"

# The rules call `quark`, which stands beside the Python that runs Snakemake, activated or not.
shell.prefix(
    f"set -euo pipefail; PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; "
)

try:
    # Snakemake lists the default last, although the others are laid over it.
    *laid_over, default = workflow.configfiles
    CONFIG = configuration.check(config, [default, *laid_over])
    for part in [*CONFIG.tasks.values(), *CONFIG.prompts.values()]:
        check_scorer(part.scorer)
except (configuration.ConfigError, ScorerError) as error:
    raise WorkflowError(str(error)) from None


wildcard_constraints:
    task="|".join(CONFIG.tasks),
    method="base|quark",
    seed=r"\d+",
    iteration=r"\d+",
    split="|".join({split for task in CONFIG.tasks.values() for split in task.splits}),


def as_json(section):
    """The settings of a verb, as its command line takes them."""
    return section.model_dump_json()


def local_files(*sources):
    """What a model or prompts are made from on this machine: a change makes them anew."""
    return [source.local for source in sources if source.local]


def tables():
    """What a whole run makes: the table of each task, and with it costs and tracking."""
    return [f"results/tables/{task}.csv" for task in CONFIG.tasks]


def tracked(task):
    """The marks of all runs of a task in MLflow."""
    return expand(
        "results/tracking/{task}/{method}/seed-{seed}.json",
        task=task,
        method=CONFIG.tasks[task].methods,
        seed=CONFIG.seeds,
    )


def model(wildcards):
    """The base model of a task."""
    return f"resources/models/{CONFIG.tasks[wildcards.task].model}"


def judge(wildcards):
    """The model that judges fluency."""
    return f"resources/models/{CONFIG.tasks[wildcards.task].judge}"


def prompts(wildcards):
    """The folder of a task's prompts, a Parquet file for each split."""
    return f"resources/prompts/{CONFIG.tasks[wildcards.task].prompts}"


def of_iteration(wildcards, iteration, name):
    """File `name` of one iteration of the rule's own task and seed."""
    return f"{ITERATION}/{name}".format(
        task=wildcards.task, seed=wildcards.seed, iteration=iteration
    )


def checkpoint_before(wildcards):
    """The checkpoint that an iteration starts from; the first starts from the base model."""
    before = int(wildcards.iteration) - 1
    return [] if before < 0 else of_iteration(wildcards, before, "checkpoint")


def checkpoint_of(wildcards):
    """The checkpoint that a method is evaluated with; the base model has none."""
    if wildcards.method == "base":
        return []
    return of_iteration(wildcards, CONFIG.quark.iterations - 1, "checkpoint")


def so_far(name):
    """A function that gives file `name` of iterations 0 to the rule's own."""
    return lambda wildcards: [
        of_iteration(wildcards, i, name) for i in range(int(wildcards.iteration) + 1)
    ]


def memo_so_far(wildcards):
    """What the base model made of the pool: of its own samples, and in training before."""
    before = range(int(wildcards.iteration))
    return [of_iteration(wildcards, 0, "samples.memo.safetensors")] + [
        of_iteration(wildcards, i, "training.memo.safetensors") for i in before
    ]


def iteration_costs(task, method, seed):
    """What Quark's iterations cost, as the stages wrote it down; nothing for other methods."""
    if method != "quark":
        return []
    return expand(
        f"{ITERATION}/{{stage}}.json",
        task=task,
        seed=seed,
        iteration=range(CONFIG.quark.iterations),
        stage=["samples", "scores", "training"],
    )


def evaluated(task, name):
    """File `name` of all evaluations: split by split, method by method, seed by seed."""
    chosen = CONFIG.tasks[task]
    return [
        f"{EVALUATION}/{name}".format(task=task, method=method, seed=seed, split=split)
        for split in chosen.splits
        for method in chosen.methods
        for seed in CONFIG.seeds
    ]


def all_costs(task):
    """What all stages of a task cost."""
    stages = ("generations.json", "scores.json", "likelihoods.json")
    chosen = CONFIG.tasks[task].methods
    iterated = [
        cost
        for method in chosen
        for seed in CONFIG.seeds
        for cost in iteration_costs(task, method, seed)
    ]
    return iterated + [cost for stage in stages for cost in evaluated(task, stage)]


def option(name, value):
    """An option of a verb, or nothing where there is no value."""
    return f"--{name} {value}" if value else ""


def repeated(name, values):
    """An option of a verb, given once for each value."""
    return " ".join(f"--{name} {value}" for value in values)
