"""Verbs for Quark's iterations and for the baselines' training."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from quark.cli.options import (
    CacheFile,
    Checkpoint,
    Checkpoints,
    ClassifierFolder,
    Folder,
    Memory,
    Model,
    Out,
    Settings,
    ShardOption,
    Threads,
    app,
    parse,
)
from quark.config import ConfigError
from quark.core.shards import Shard
from quark.stages import settings as needs
from quark.stages.threads import use_threads


@app.command()
def sample(
    settings: Settings,
    prompts: Annotated[Path, typer.Option(help="Parquet file of prompts")],
    model: Model,
    out: Out,
    memory_mb: Memory,
    checkpoint: Checkpoints = None,
    hidden: Annotated[
        Path | None, typer.Option(help="file for the hidden states that predicted the samples")
    ] = None,
    shard: ShardOption = "1-of-1",
    threads: Threads = 1,
    vllm_python: Annotated[
        Path | None,
        typer.Option(
            envvar="QUARK_VLLM_PYTHON", help="Python of an environment with vLLM, if vLLM samples"
        ),
    ] = None,
) -> None:
    """Continue prompts under the best reward token, or with a baseline's decoder."""
    from quark.stages.sample import sample_stage

    use_threads(threads)
    wanted, part = parse(needs.SampleSettings, settings), Shard.parse(shard)
    sample_stage(
        wanted, prompts, model, checkpoint or [], out, memory_mb, hidden, part, vllm_python
    )


@app.command()
def score(
    settings: Settings,
    samples: Annotated[Path, typer.Option(help="Parquet file of samples")],
    out: Out,
    classifier: ClassifierFolder = None,
    cache: CacheFile = None,
    shard: ShardOption = "1-of-1",
    threads: Threads = 1,
) -> None:
    """Score each response; a failed score is null and counted."""
    from quark.stages.score import score_stage

    wanted, part = parse(needs.ScoreSettings, settings), Shard.parse(shard)
    score_stage(wanted, samples, out, classifier, cache, part, threads)


@app.command()
def calibrate(
    settings: Settings,
    prompts: Annotated[Path, typer.Option(help="directory of prompts with published scores")],
    out: Out,
    classifier: ClassifierFolder = None,
    cache: CacheFile = None,
    threads: Threads = 1,
) -> None:
    """Compare a scorer with the published scores of prompts."""
    from quark.tools.calibration import calibrate as run

    wanted = parse(needs.CalibrateSettings, settings)
    run(wanted, prompts, out, classifier, cache, threads)


@app.command()
def quantize(
    settings: Settings,
    samples: Annotated[
        list[Path],
        typer.Option(help="Parquet files of the samples of iterations 0 to i, in this order"),
    ],
    scores: Annotated[
        list[Path], typer.Option(help="Parquet files of these samples' scores, in the same order")
    ],
    out: Out,
) -> None:
    """Gather all samples so far into a pool and sort it into quantiles, 0 = best."""
    from quark.stages.quantize import quantize_stage as run
    from quark.tasks import TASKS

    wanted = parse(needs.QuantizeSettings, settings)
    run(
        samples,
        scores,
        out,
        reward=TASKS[wanted.task].reward,
        k=wanted.quantiles,
        max_failed=wanted.max_failed_scores,
        seed_name=wanted.stream,
        within=wanted.within,
        shuffle=wanted.shuffle,
    )


@app.command()
def train(
    settings: Settings,
    pool: Annotated[Path, typer.Option(help="Parquet file of the pool")],
    model: Model,
    out: Folder,
    memory_mb: Memory,
    checkpoint: Checkpoint = None,
    hidden: Annotated[
        list[Path] | None, typer.Option(help="files of the base model's known hidden states")
    ] = None,
    processes: Annotated[
        int,
        typer.Option(
            min=1,
            help="number of processes on a node, one for each GPU; they share threads and memory",
        ),
    ] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="number of nodes of a SLURM job")] = 1,
    layers: Annotated[
        Literal["whole", "split"],
        typer.Option(help="split: each process holds a part of each layer"),
    ] = "whole",
    threads: Threads = 1,
) -> None:
    """Train on each quantile under its reward token, with a KL penalty against the base model."""
    from quark.models.distributed import launch
    from quark.stages.train import train_stage

    if layers == "split" and processes * nodes == 1:
        raise ConfigError("layers=split needs several processes: --processes, one for each GPU")
    launch(processes, nodes, threads)
    use_threads(max(1, threads // processes))
    wanted = parse(needs.TrainSettings, settings)
    own_mb, split = memory_mb // processes, layers == "split"
    train_stage(wanted, pool, model, checkpoint, hidden or [], out, own_mb, split)


@app.command()
def corpus(
    settings: Settings,
    prompts: Annotated[Path, typer.Option(help="Parquet file of training prompts")],
    samples: Annotated[Path, typer.Option(help="Parquet file of the base model's samples")],
    scores: Annotated[Path, typer.Option(help="Parquet file of these samples' scores")],
    model: Model,
    out: Out,
    texts: Annotated[Path | None, typer.Option(help="Parquet file of plain texts")] = None,
    classifier: ClassifierFolder = None,
    cache: CacheFile = None,
    threads: Threads = 1,
) -> None:
    """Gather wanted and unwanted text for the baselines."""
    from quark.stages.corpus import corpus_stage
    from quark.tasks import TASKS

    wanted = parse(needs.CorpusSettings, settings)
    reward = TASKS[wanted.task].reward
    files = (prompts, texts, samples, scores, model, out)
    corpus_stage(wanted, *files, reward=reward, classifier=classifier, cache=cache, threads=threads)


@app.command()
def fit(
    settings: Settings,
    corpus: Annotated[Path, typer.Option(help="Parquet file of wanted and unwanted text")],
    model: Model,
    out: Folder,
    memory_mb: Memory,
    threads: Threads = 1,
) -> None:
    """Train one part of a baseline on the corpus."""
    from quark.stages.fit import fit_stage

    use_threads(threads)
    fit_stage(parse(needs.FitSettings, settings), corpus, model, out, memory_mb)


@app.command()
def learn(
    settings: Settings,
    samples: Annotated[Path, typer.Option(help="Parquet file of the policy's samples")],
    scores: Annotated[Path, typer.Option(help="Parquet file of these samples' scores")],
    model: Model,
    out: Folder,
    memory_mb: Memory,
    checkpoint: Checkpoint = None,
    hidden: Annotated[
        Path | None, typer.Option(help="file of the policy's hidden states, stored by sampling")
    ] = None,
    threads: Threads = 1,
) -> None:
    """Train a method with a learner of its own, such as PPO, on the scored samples of a round."""
    from quark.stages.learn import learn_stage

    use_threads(threads)
    wanted = parse(needs.LearnSettings, settings)
    learn_stage(wanted, samples, scores, model, checkpoint, out, memory_mb, hidden)
