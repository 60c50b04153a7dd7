"""The graph of the paper's toxicity table through a SLURM whose jobs sleep and whose nodes fail.

    CHECKPOINTS=last NODES=4 tests/slurm/with .venv/bin/python tests/slurm/simulate.py --hour 75

Each job sleeps for the time that the plan expects on GPUs of 36 TFLOP/s, an hour of it being some
seconds, and makes empty outputs. Two nodes go down under their jobs. Graph, profile and SLURM are
real. The run must end with the outputs of all jobs. It may take 25 % more or less than planned for
these GPUs, with what Snakemake and SLURM take around a job. Memory is asked for and not used, since
this SLURM does not enforce it.
"""

import argparse
import csv
import heapq
import json
import os
import random
import shutil
import statistics
import subprocess
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "tests/tmp/simulated"
TARGET = "results/tables/toxicity.csv"
GPUS_PER_NODE = 2
OTHER = 64
"""Jobs without a GPU that run at once."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hour", type=float, default=75, help="seconds for an hour of the plan")
    parser.add_argument("--config", default="config/scale/paper.yaml")
    parser.add_argument("--losses", type=int, default=2, help="how often a node goes down")
    parser.add_argument("--shards", type=int, default=1, help="of each stage that is cut")
    how = parser.parse_args()
    nodes = int(os.environ.get("NODES", "1"))

    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    for part in ("config", "profiles", "workflow", "tests"):
        (WORK / part).symlink_to(ROOT / part)
    begun = time.monotonic()
    process = start(how)
    killed = lose_nodes(process, nodes, how.losses)
    assert len(killed) >= how.losses, "no job ran on a node that went down: make the hour longer"
    assert process.wait() == 0, f"the run failed: {WORK}/snakemake.log"
    taken = time.monotonic() - begun

    graph = json.loads((WORK / "graph.json").read_text())
    with (WORK / "jobs.csv").open() as file:
        ends = {row[0]: (float(row[1]), float(row[2])) for row in csv.reader(file)}
    missing = [output for output in graph if output not in ends and graph[output]["seconds"]]
    assert (WORK / TARGET).exists() and not missing, missing

    made = [output for output in ends if "/iteration-" in output and "/checkpoint" in output]
    left = [output for output in made if (WORK / output).exists()]
    trained = {output.rpartition("/iteration-")[0] for output in made}
    print(f"{len(left)} of {len(made)} checkpoints of {len(trained)} trainings are left")
    assert len(left) == (len(trained) if os.environ.get("CHECKPOINTS") == "last" else len(made))
    around = overhead(graph, ends)
    planned = makespan(graph, around, GPUS_PER_NODE * nodes)
    hours = sum(job["seconds"] for job in graph.values()) / how.hour
    print(f"{len(ends)} jobs of {hours:.1f} planned hours; {len(killed)} killed with their nodes")
    print(f"Snakemake and SLURM take {around:.1f} s around a job")
    print(f"planned {planned:.0f} s, taken {taken:.0f} s: {taken / planned:.2f}")
    assert abs(taken / planned - 1) < 0.25


def start(how: argparse.Namespace) -> subprocess.Popen[bytes]:
    command = [ROOT / "tests/slurm/snakemake", "--snakefile", ROOT / "tests/slurm/simulated.smk"]
    command += ["--set-scatter", f"shards={how.shards}"]
    with (WORK / "snakemake.log").open("w") as log:
        return subprocess.Popen(
            [*command, "--configfile", how.config, "--", TARGET],
            cwd=WORK,
            env={**os.environ, "HOUR": str(how.hour)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def lose_nodes(process: subprocess.Popen[bytes], nodes: int, losses: int) -> list[str]:
    """Take nodes down for some seconds while jobs run on them; return these jobs."""
    rng, killed = random.Random(1), list[str]()
    for _ in range(losses):
        for _ in range(150):
            if process.poll() is not None:
                return killed
            time.sleep(1)
        node = f"node{rng.randint(1, nodes)}"
        asked = ["squeue", "--noheader", "--states=RUNNING", f"--nodelist={node}", "--format=%k"]
        running = subprocess.run(asked, capture_output=True, text=True, check=True)
        killed += running.stdout.splitlines()
        state(node, "down", "reason=test")
        time.sleep(10)
        state(node, "resume")  # an error if it is back by itself, as SLURM here is told
    return killed


def state(node: str, new: str, *more: str) -> None:
    change = ["scontrol", "update", f"nodename={node}", f"state={new}", *more]
    subprocess.run(change, check=False, capture_output=True)


def overhead(graph: dict, ends: dict[str, tuple[float, float]]) -> float:
    """The median seconds from the end of a job's last input to its own begin, without a queue."""
    waited = [
        ends[output][0] - max(ends[other][1] for other in job["after"] if other in ends)
        for output, job in graph.items()
        if output in ends and any(other in ends for other in job["after"])
    ]
    return statistics.median(waited)


def makespan(graph: dict, around: float, gpus: int) -> float:
    """The seconds of the graph if a job starts as soon as its inputs and a GPU are there."""
    users = {output: [] for output in graph}
    left = Counter({output: len(job["after"]) for output, job in graph.items()})
    for output, job in graph.items():
        for other in job["after"]:
            users[other].append(output)
    free = {True: gpus, False: OTHER}
    ready = [output for output in graph if not left[output]]
    running: list[tuple[float, str]] = []
    now = 0.0
    while ready or running:
        for output in list(ready):
            on_gpu = bool(graph[output]["gpus"])
            if free[on_gpu]:
                free[on_gpu] -= 1
                ready.remove(output)
                own = graph[output]["seconds"]
                heapq.heappush(running, (now + own + (around if own else 0), output))
        now, done = heapq.heappop(running)
        free[bool(graph[done]["gpus"])] += 1
        for output in users[done]:
            left[output] -= 1
            if not left[output]:
                ready.append(output)
    return now


if __name__ == "__main__":
    main()
