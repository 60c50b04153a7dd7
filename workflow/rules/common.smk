"""The checked configuration, paths, and functions that turn settings into options of a verb."""

import os
import re
import shlex
import shutil
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from snakemake.exceptions import WorkflowError

from quark import config as configuration
from quark.config import precision, registry, site
from quark.scorers import (
    SCORERS,
    SERVICE,
    ScorerError,
    asked_scorers,
    check_key,
    check_scorers,
)
from quark.core import paths
from quark.stages import derive
from quark.stages.graph import Graph, family
from quark.tasks import TASKS
from quark.tools import planning

RESULTS = Path("results")
PACKAGE = Path(configuration.__file__).parents[1]
CONDA = "../envs/quark.yaml"
CACHE = (
    "resources/scores.sqlite"  # all scores of a service, shared by all tasks and runs
)
try:
    # Snakemake lists the default last, although the other files are laid over it.
    *laid_over, default = workflow.configfiles
    replaced = workflow.config_settings.replace_workflow_config
    over = dict(workflow.config_settings.config)
    SITE = site.take_site(over)
    # Read the files again, since Snakemake accepts two equal keys and takes the last.
    WRITTEN = configuration.load([*([] if replaced else [default]), *laid_over], over)
    PRECISION = precision.choose(
        WRITTEN.precision,
        RESULTS,
        auto=SITE.auto_precision,
        may_look=workflow.is_main_process,
    )
    CONFIG = configuration.resolved(WRITTEN, PRECISION.precision)
    check_scorers(CONFIG)
    if SERVICE in asked_scorers(CONFIG).values():
        check_key()
        if workflow.is_main_process:
            logger.warning("Perspective ends with 2026: keep resources/scores.sqlite.")
    if any(task.vllm for task in CONFIG.tasks.values()):
        if SITE.vllm_python is None:
            raise configuration.ConfigError(
                "tasks.TASK.vllm names methods, but the profile names no Python that has vLLM: --config "
                "vllm_python=/path/to/environment/bin/python, on a cluster in the profile's `config` "
                "(docs/scaling.md)"
            )
        if workflow.local_exec and shutil.which(SITE.vllm_python) is None:
            raise configuration.ConfigError(
                f"vllm_python: {SITE.vllm_python} is no program (docs/scaling.md)"
            )
    GRAPH = Graph(CONFIG)
    EVALUATED = [part.evaluation for part in GRAPH.configs()]
    if any(part.mauve for part in EVALUATED) and find_spec("mauve") is None:
        raise configuration.ConfigError(
            "evaluation.mauve needs the package mauve-text: pip install mauve-text"
        )
except (configuration.ConfigError, ScorerError) as error:
    raise WorkflowError(str(error)) from None


onstart:
    # This runs before the first job of a real run. It writes a file that jobs on a cluster read.
    if workflow.is_main_process:
        if not workflow.local_exec and SITE.threads is None:
            # Snakemake would submit jobs with one core, and count the cores of the node in the job.
            raise WorkflowError(
                "config has no `threads`, the cores of a job. `--config` on the command line replaces all "
                "keys of the profile's config, so repeat them there"
            )
        for line in precision.begin(
            PRECISION, WRITTEN.precision, RESULTS, here=workflow.local_exec
        ):
            logger.warning(line)
        begin_progress()


# The rules call `quark`: of an image, of a conda environment (whose packages run this clone's code), or of the
# Python that runs Snakemake, even if its environment is not activated.
DEPLOYED = {
    method.name.lower() for method in workflow.deployment_settings.deployment_method
}
if SITE.image and "apptainer" in DEPLOYED:
    find_quark = ""

    container: SITE.image

elif "conda" in DEPLOYED:
    if not (PACKAGE.parent / "workflow").exists():
        raise WorkflowError(
            f"--sdm conda runs the code of a clone, but quark is installed in {PACKAGE.parent}: install it by "
            "`make install` in a clone"
        )
    find_quark = (
        f"export PYTHONPATH={shlex.quote(str(PACKAGE.parent))}; "
        'quark() {{ python -m quark.cli "$@"; }}; '
    )
else:
    find_quark = f"PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; "
# With GOMP_SPINCOUNT, threads that wait for each other soon give up their core. Without it, sampling is many
# times slower while another program needs a core (docs/performance.md).
shell.prefix(
    "set -euo pipefail; "
    + find_quark
    + "export GOMP_SPINCOUNT=${{GOMP_SPINCOUNT:-1000}}; "
    + (
        f"export QUARK_VLLM_PYTHON={shlex.quote(SITE.vllm_python)}; "
        if SITE.vllm_python
        else ""
    )
)

# The cores of a job with a model.
CORES = SITE.threads or workflow.resource_settings.cores or 1
NOTHING = "(?!)"  # a pattern that matches no name
SEED = r"\d+"


scattergather:
    shards=1,


SHARDS = len(scatter.shards("{scatteritem}"))
UNDIVIDED = SEED if SHARDS == 1 else NOTHING  # for rules that are replaced by shards
# Patterns of `task`, by the path that follows: iterations that a method decodes with, and earlier ones.
LAST = "|".join(
    paths.ITERATION.format(task=task, method=re.escape(method), seed=SEED, iteration=i)
    for (task, method), i in GRAPH.last_iterations().items()
)
ALL_TASKS = "|".join(CONFIG.tasks)
EARLIER = rf"(?!(?:{LAST})/)(?:{ALL_TASKS})"
TRAINED = (
    rf"(?=(?:{LAST})/)(?:{ALL_TASKS})" if SITE.checkpoints == "last" else ALL_TASKS
)
SORTED = [name for name, part in CONFIG.prompts.items() if part.sorted is not None]


wildcard_constraints:
    task=ALL_TASKS,
    method="|".join(map(re.escape, GRAPH.with_variants(list(registry.METHODS)))),
    sweep="|".join(map(re.escape, CONFIG.ablations)) or NOTHING,
    part="|".join(registry.parts()),
    seed=SEED,
    shard=r"\d+-of-\d+",
    iteration=r"\d+",
    scorer="|".join(
        map(re.escape, [*SCORERS, *CONFIG.classifiers, *CONFIG.functions, SERVICE])
    ),
    split="|".join(
        {split for task in CONFIG.tasks.values() for split in task.splits}
        | {tuning.split for tuning in CONFIG.tuning.values()}
    ),
    decoding="|".join({name for part in EVALUATED for name in part.decoding}),


def growing(amount):
    """A resource that grows each time a failed job is submitted again (--restart-times)."""
    return lambda wildcards, attempt: attempt * amount


def minutes(usual, stage=None):
    """The runtime of a job, in minutes; `stage` is the rule of one that the plan knows."""

    def runtime(wildcards, attempt):
        planned = None
        if stage and SITE.tflops:
            planned = planned_seconds(stage, dict(wildcards.items()))
            if planned and SITE.longest and planned > 60 * SITE.longest:
                warn_of_limit(stage, *map(wildcards.get, ("task", "method", "part")))
        return SITE.minutes(usual, planned, attempt)

    return runtime


@cache
def warn_of_limit(stage, *where):
    """Say that a job will not end in time, once for each stage of a method."""
    if workflow.is_main_process:
        names = "/".join(filter(None, where))
        logger.warning(
            f"{stage} of {names} needs more time by the plan than the partitions allow ({SITE.longest} minutes, "
            "`longest`): cut it by --set-scatter shards=N, or use faster GPUs (`tflops`)"
        )


def plan_of(wildcards):
    """What a job's plan is of: the task, None for all tasks; the variant of a method, if it is one."""
    method = wildcards.get("method", "")
    return wildcards.get("task"), method if "." in method else None


@cache
def costs_of(task, variant):
    """The costs of all jobs of a task, or of one variant there; task None: of all tasks."""
    config = GRAPH.variants[task, variant] if variant else CONFIG
    return planning.plan(config, [task] if task else None)


def planned_seconds(stage, wildcards):
    """The seconds of a job by the plan, on the site's machines; None: they are not known."""
    try:
        costs = costs_of(*plan_of(wildcards))
    except Exception:  # sizes may be unknown; the plan must not stop a run
        return None
    expected = planning.Expected(costs, planning.Machine(1000 * SITE.tflops))
    seconds = expected.planned(stage, wildcards)
    return seconds and seconds / (SHARDS if "shard" in wildcards else 1)


def as_json(section):
    """The settings of a verb as JSON, for its command line."""
    return section.model_dump_json()


def shard(wildcards):
    """The option that names the shard of a job; nothing if the job is no shard."""
    return option("shard", getattr(wildcards, "shard", ""))


def option(name, value):
    """An option of a verb; nothing if there is no value."""
    return f"--{name} {value}" if value else ""


def repeated(name, values):
    """An option of a verb, given once for each value."""
    return " ".join(f"--{name} {value}" for value in values)
