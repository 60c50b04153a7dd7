"""Show the progress of runs from their files, without Snakemake or locks; no file is changed.

A stage that has a log but no output file is running or has stopped. The end of its log says why.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from quark.config import Config, ConfigError, Method, TaskName, for_task, overlay
from quark.config.registry import iterations
from quark.core import files, paths
from quark.reporting.compare_runs import differences
from quark.stages import derive
from quark.tools.planning.progress import FILE

LINES = 5
"""Number of a log's last lines that are shown."""
MAKES = {  # each rule's output, by its log; {place}: any folders, other wildcards: one name
    "ablations/{sweep}": "results/ablations/{sweep}.csv",
    "ablations": "results/tables/ablations.csv",
    "figures/ablations/{sweep}": "results/figures/ablations/{sweep}.svg",
    "tuning/{task}/table": "results/tuning/{task}/table.csv",
    "tuning/{task}": "results/tuning/{task}.csv",
    "figures/tuning/{task}": "results/figures/tuning/{task}.svg",
    "calibration/{prompts}/{scorer}": "results/calibration/{prompts}/{scorer}.csv",
    "benchmarks/{what}": "results/benchmarks/{what}.csv",
    "fetch_model/{name}": "resources/models/{name}",
    "finetune_model/{name}": "resources/models/{name}",
    "fetch_classifier/{name}": "resources/classifiers/{name}",
    "fetch_prompts/{name}": "resources/prompts/{name}",
    "fetch_candidates/{name}": "resources/candidates/{name}/prompts",
    "sample_candidates/{name}": "resources/candidates/{name}/samples.parquet",
    "score_candidates/{name}": "resources/candidates/{name}/scores.parquet",
    "sort_prompts/{name}": "resources/prompts/{name}",
    "{task}/table": "results/{task}/table.csv",
    "{task}/archive": "results/archives/{task}.zip",
    "{task}/costs": "results/tables/{task}_cost.csv",
    "{task}/publish": "results/tables/{task}.csv",
    "{task}/{method}/{seed}/track": "results/tracking/{task}/{method}/{seed}.json",
    "{task}/figures/{figure}": "results/figures/{task}/{figure}.svg",
    "{task}/{method}/curves": "results/figures/{task}/{method}/curves.svg",
    "{task}/{method}/{seed}/rewards": "results/figures/{task}/{method}/{seed}/rewards.svg",
    "{task}/page": "results/report/{task}.html",
    "{place}/sample": "results/{place}/samples.parquet",
    "{place}/score": "results/{place}/scores.parquet",
    "{place}/score_again": "results/{place}/second_scores.parquet",
    "{place}/quantize": "results/{place}/pool.parquet",
    "{place}/train": "results/{place}/training.json",
    "{place}/fit": "results/{place}/training.json",
    "{place}/corpus": "results/{place}/corpus.parquet",
    "{place}/generate": "results/{place}/generations.parquet",
    "{place}/judge": "results/{place}/likelihoods.parquet",
    "{place}/predict": "results/{place}/predictions.parquet",
    "{place}/mauve": "results/{place}/mauve.json",
    "{place}/evaluate": "results/{place}/metrics.json",
    "{place}/gather_{table}": "results/{place}/{table}.parquet",
}
SHARD = re.compile(r"-\d+-of-\d+$")


@dataclass(frozen=True)
class Progress:
    """A run's finished and total iterations and evaluations; no rounds: `iterations` is (0, 0)."""

    task: TaskName
    method: Method
    seed: int
    iterations: tuple[int, int]
    evaluations: tuple[int, int]


@dataclass(frozen=True)
class Unfinished:
    """A stage that began but has no output: its target, its log, and the log's last lines."""

    target: Path
    log: Path
    lines: Sequence[str]

    def command(self, laid_over: Sequence[Path] = ()) -> str:
        """Return the command that continues from there, with the same configuration files."""
        files = f" --configfile {' '.join(map(str, laid_over))}" if laid_over else ""
        return f"snakemake --cores all {self.target}{files}"


def progress(config: Config, results: Path) -> Iterator[Progress]:
    """Yield the progress of each method and seed of each task that has begun."""
    for task, own in config.tasks.items():
        if not (results / task).is_dir():
            continue
        chosen = for_task(config, task)
        for method in own.methods:
            count = iterations(chosen, method)
            decodings = derive.decodings(chosen, method)
            for seed in config.seeds:
                run = paths.run(results, task, method, seed)
                trained = [
                    (paths.iteration(run, i) / "training.json").is_file() for i in range(count)
                ]
                measured = [
                    (paths.evaluation(run, split, name) / "metrics.json").is_file()
                    for split in own.splits
                    for name in decodings
                ]
                yield Progress(
                    task,
                    method,
                    seed,
                    (sum(trained), count),
                    (sum(measured), len(measured)),
                )


def made_by(log: str) -> str | None:
    """Return the output of the rule that writes this log; None: no known rule.

    `log` is relative to the logs' folder, without its suffix.
    """
    for pattern, made in MAKES.items():
        named = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern).replace(
            "(?P<place>[^/]+)", "(?P<place>.+)"
        )
        if found := re.fullmatch(named, log):
            return made.format(**found.groupdict())
    return None


def unfinished(results: Path, resources: Path, logs: Path) -> list[Unfinished]:
    """Return the stages that began but have no output, the latest first."""
    found = []
    for log in logs.rglob("*.log"):
        made = made_by(SHARD.sub("", str(log.relative_to(logs).with_suffix(""))))
        if made is None:
            continue
        top, _, rest = made.partition("/")
        target = {"results": results, "resources": resources}[top] / rest
        if not target.exists():
            lines = log.read_text(errors="replace").splitlines()
            found.append((log.stat().st_mtime, Unfinished(target, log, lines[-LINES:])))
    return [stage for _, stage in sorted(found, key=lambda pair: -pair[0])]


def status(
    config: Config, results: Path, resources: Path, logs: Path, laid_over: Sequence[Path] = ()
) -> RenderableType:
    """Render progress and unfinished stages for the terminal.

    Args:
        config: the runs' configuration.
        results, resources, logs: the directories.
        laid_over: the configuration files that override the default; the commands name them.
    """
    table = Table("task", "method", "seed", "iterations", "evaluations", "table")
    for run in progress(config, results):
        done = (results / "tables" / f"{run.task}.csv").is_file()
        table.add_row(
            run.task,
            run.method,
            str(run.seed),
            _of(run.iterations) if run.iterations[1] else "-",
            _of(run.evaluations),
            "done" if done else "",
        )
    stopped = unfinished(results, resources, logs)
    if not table.row_count and not stopped:
        return Text(f"Nothing has run yet: there is no task in {results}")
    parts: list[RenderableType] = [table] if table.row_count else []
    said = results / FILE
    if said.is_file():
        parts.append(Text(f"The last run: {files.read_json(said)['line']}"))
    for stage in stopped:
        parts.append(Text(f"\n{stage.target}: began but has not ended. {stage.log} ends with"))
        parts += [Text(f"    {line}", style="dim") for line in stage.lines or ["(it is empty)"]]
        parts.append(Text(f"  If no snakemake runs: {stage.command(laid_over)}", style="bold"))
    return Group(*parts)


def _of(pair: tuple[int, int]) -> str:
    return f"{pair[0]} of {pair[1]}"


def last_checkpoint(config: Config, task: TaskName, method: str, seed: int, results: Path) -> Path:
    """Return the checkpoint of the last iteration of a Quark run.

    Raises:
        ConfigError: the method is not Quark, its training is not finished, or it was trained with
            other settings than those of this configuration.
    """
    if method not in derive.QUARKS:
        raise ConfigError(f"{method}: only {' and '.join(derive.QUARKS)} have reward tokens")
    own = for_task(config, task)
    last = own.quark.iterations - 1
    found = paths.iteration(paths.run(results, task, method, seed), last) / "checkpoint"
    about = found / "checkpoint.json"
    if not about.is_file():
        raise ConfigError(f"{found}: not trained yet: snakemake --cores all {found}")
    wanted = derive.train(own, task, method, seed, last).model_dump(mode="json")
    stored = files.read_json(about).get("settings", {}) | {"version": wanted["version"]}
    known = overlay(wanted, stored)  # older code had fewer keys
    if differ := differences(known, wanted):
        said = "; ".join(f"{key} {one}, not {other}" for key, (one, other) in differ.items())
        raise ConfigError(
            f"{found}: trained with {said}. Name the configuration files of that run: --config"
        )
    return found
