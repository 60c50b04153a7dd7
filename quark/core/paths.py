"""The layout of a run's files below `results/`; no other module defines it.

The rules use the patterns, whose names in braces are Snakemake's wildcards; the package uses the
functions.
"""

from pathlib import Path

RUN = "{task}/{method}/seed-{seed}"
"""The folder of one method and seed."""
ITERATION = RUN + "/iteration-{iteration}"
"""One round of sampling and training."""
PREDICTED = RUN + "/evaluation/{split}"
"""Results that do not depend on the decoding."""
EVALUATION = PREDICTED + "/{decoding}"
"""A method's generations on one split with one decoding, and all measurements of them."""
CORPUS = "{task}/corpus/seed-{seed}"
"""The corpus that the baselines learn from."""
PART = "{task}/part-{part}/seed-{seed}"
"""A part of a method that is learnt from the corpus."""
VARIED_PART = "{task}/{method}/part-{part}/seed-{seed}"
"""The same, for a variant that trains the part differently."""


def run(results: Path, task: str, method: str, seed: int) -> Path:
    """The folder of one method and seed."""
    return results / RUN.format(task=task, method=method, seed=seed)


def iteration(run: Path, number: int) -> Path:
    """The folder of one iteration."""
    return run / f"iteration-{number}"


def evaluation(run: Path, split: str, decoding: str) -> Path:
    """The folder of one evaluation."""
    return run / "evaluation" / split / decoding


def evaluations(run: Path) -> list[Path]:
    """The folders of the evaluations that are done."""
    return sorted(file.parent for file in run.glob("evaluation/*/*/settings.json"))


def checkpoints(run: Path) -> dict[int, Path]:
    """The checkpoints of a run by their iteration, the first one first."""
    found = (file.parent for file in run.glob("iteration-*/checkpoint/checkpoint.json"))
    return dict(sorted((number_of(folder.parent), folder) for folder in found))


def number_of(folder: Path) -> int:
    """The seed of a folder `seed-S`, or the iteration of a folder `iteration-I`."""
    return int(folder.name.rpartition("-")[2])


def named(file: Path) -> tuple[str, str, int, str] | None:
    """Task, method, seed of a file `.../TASK/METHOD/seed-S/PLACE`, and PLACE without its ending.

    None: its path has another form.
    """
    at = max((i for i, part in enumerate(file.parts) if part.startswith("seed-")), default=0)
    if at < 2 or at == len(file.parts) - 1:
        return None
    task, method, _ = file.parts[at - 2 : at + 1]
    place = "/".join(file.with_suffix("").parts[at + 1 :])
    return task, method, number_of(Path(file.parts[at])), place
