"""The workflow with jobs that only take their planned time: they sleep, and make empty outputs.

An hour of the plan is HOUR seconds (simulate.py). Each job adds a line with its times to jobs.csv,
and the end of the run writes graph.json: the seconds, GPUs and inputs of each job.
"""

import json
import os
import time

from snakemake.io import is_flagged


include: "../../workflow/Snakefile"


SHORT = 3.0  # seconds of a job that the plan does not know
HOUR = float(os.environ["HOUR"])


def sleep(input, output, params, wildcards, *more):
    """What each job does; its arguments are those of Snakemake's own functions."""
    begun = time.time()
    time.sleep(float(params.asleep))
    for file, is_folder in zip(output, params.folders, strict=True):
        Path(file).mkdir() if is_folder else Path(file).touch()
    with open("jobs.csv", "a") as jobs:
        jobs.write(f"{output[0]},{begun},{time.time()},{params.asleep}\n")


def asleep(name):
    """The seconds that a job sleeps: by the plan, a shard's in proportion."""

    def seconds(wildcards):
        given = dict(wildcards.items())
        planned = planned_seconds(name, given)
        return f"{(planned or SHORT) / 3600 * HOUR:.2f}"

    return seconds


for each in workflow.rules:
    if each.output and not each.norun:
        folders = [is_flagged(file, "directory") for file in each.output]
        each.set_params(asleep=asleep(each.name), folders=folders)
        each.run_func, each._benchmark = sleep, None


onsuccess:
    graph = {
        str(job.output[0]): {
            "seconds": float(job.params.get("asleep", 0)),
            "gpus": int(job.resources.get("gpu", 0)),
            "after": [
                str(other.output[0]) for other in workflow.dag.dependencies[job]
            ],
        }
        for job in workflow.dag.jobs
        if job.output
    }
    Path("graph.json").write_text(json.dumps(graph, indent=1))
