"""The checked configuration, paths, and functions that turn settings into options of a verb."""

import os
import re
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path

from snakemake.exceptions import WorkflowError

from quark import config as configuration
from quark.config import precision, registry
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
CONDA = "../envs/quark.yaml"
CACHE = (
    "resources/scores.sqlite"  # all scores of a service, shared by all tasks and runs
)
# The rules call `quark`. PATH gets the folder of the Python that runs Snakemake, so `quark` is found even
# if the environment is not activated. With GOMP_SPINCOUNT, threads that wait for each other soon give up
# their core. Without it, sampling is many times slower while another program needs a core (docs/performance.md).
shell.prefix(
    f"set -euo pipefail; PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; "
    "export GOMP_SPINCOUNT=${{GOMP_SPINCOUNT:-1000}}; "
)

try:
    # Snakemake lists the default last, although the other files are laid over it.
    *laid_over, default = workflow.configfiles
    replaced = workflow.config_settings.replace_workflow_config
    over = dict(workflow.config_settings.config)
    auto = over.pop("auto_precision", None)  # from a cluster's profile
    # Read the files again, since Snakemake accepts two equal keys and takes the last.
    WRITTEN = configuration.load([*([] if replaced else [default]), *laid_over], over)
    PRECISION = precision.choose(
        WRITTEN.precision,
        RESULTS,
        auto=auto,
        may_look=workflow.is_main_process,
    )
    CONFIG = configuration.resolved(WRITTEN, PRECISION.precision)
    check_scorers(CONFIG)
    if SERVICE in asked_scorers(CONFIG).values():
        check_key()
        if workflow.is_main_process:
            logger.warning("Perspective ends with 2026: keep resources/scores.sqlite.")
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
        for line in precision.begin(
            PRECISION, WRITTEN.precision, RESULTS, here=workflow.local_exec
        ):
            logger.warning(line)
        begin_progress()


# The number of --cores. It is missing if a cluster's profile sets the threads of each rule.
CORES = workflow.resource_settings.cores or 1
NOTHING = "(?!)"  # a pattern that matches no name
SEED = r"\d+"


scattergather:
    shards=1,


SHARDS = len(scatter.shards("{scatteritem}"))
UNDIVIDED = SEED if SHARDS == 1 else NOTHING  # for rules that are replaced by shards
SORTED = [name for name, part in CONFIG.prompts.items() if part.sorted is not None]


wildcard_constraints:
    task="|".join(CONFIG.tasks),
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
