"""Evaluate models alone, without a run: `quark measure`.

Each model continues the prompts of a task's splits, or one's own prompts. The task's scorers score
the continuations, its judge gives their perplexity, and one table compares the models on the same
prompts. Everything is as in a run: sampler, metrics, intervals, paired differences. The models
share the random stream of the base model's evaluation.
"""

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from quark.config import (
    Config,
    ConfigError,
    ModelSource,
    PromptSource,
    Section,
    TaskName,
    for_task,
)
from quark.core import files, paths
from quark.data import fetch_model, fetch_prompts
from quark.data.classifiers import fetch_classifier
from quark.models.lm import encode, load_tokenizer
from quark.reporting.evaluation import evaluate_stage
from quark.reporting.tables import make_table
from quark.reporting.tables.columns import Row
from quark.reporting.tables.text import read_table
from quark.stages import derive
from quark.stages.judge import judge_stage
from quark.stages.predict import predict_stage
from quark.stages.sample import sample_stage
from quark.stages.score import score_stage
from quark.tools.demo import CACHE
from quark.tools.export import BEST

log = logging.getLogger(__name__)
OWN = "prompts"
"""The split name of one's own prompts."""
SEED = 1
S = TypeVar("S", bound=Section)


def measure(
    config: Config,
    task: TaskName,
    models: Sequence[str],
    out: Path,
    *,
    resources: Path = Path("resources"),
    prompts: Path | None = None,
    memory_mb: int = 8000,
    threads: int = 1,
) -> list[Row]:
    """Evaluate models and write their table.

    Args:
        config: gives the task's prompts, scorers and judge, and the settings of the evaluation.
        task: the task.
        models: each a directory of safetensors, a model's name under `models` in the
            configuration, or a repository of the Hugging Face hub, `OWNER/NAME` or
            `OWNER/NAME@COMMIT`. `ROW=MODEL` gives the row another name. The others are compared
            with the first.
        out: a new directory: `table.csv`, `.md`, `.tex` and `.json`, and the files of each model.
        resources: directory of fetched models, scorers and prompts; what is missing is fetched.
        prompts: text file with a prompt on each line; None: the task's test splits.
        memory_mb: memory in MB; limits the rows that are decoded together.
        threads: threads of scorers and judge.

    Returns:
        The rows of the table, one for each split, decoding and model.

    Raises:
        ConfigError: `out` exists, two models have the same name, prompts must be made by a run,
            something in `resources` comes from another source than the configuration says, or a
            model's tokenizer puts a reward token before each prompt.
        ResourceError: a model, a scorer or prompts cannot be fetched.
        ModelError: a model cannot be used here.
        ScorerError: a scorer cannot work.
    """
    if out.exists():
        raise ConfigError(f"{out} exists: name another directory, or remove it")
    given = _sources(config, models)
    chosen = for_task(config, task)
    if prompts is not None:  # all of them, whatever the configuration's limit is
        whole = chosen.evaluation.model_copy(update={"prompts": None})
        chosen = chosen.model_copy(update={"evaluation": whole})
    here = _Here(chosen, task, resources, out, memory_mb, threads)
    splits = {OWN: here.own_prompts(prompts)} if prompts else splits_of(chosen, task, resources)
    judge = here.configured(here.config.tasks[task].judge)
    converted = {
        name: here.configured(source) if isinstance(source, str) else here.converted(name, source)
        for name, source in given.items()
    }
    folders = []
    for name, model in converted.items():
        for split, file in splits.items():
            for decoding in derive.decodings(here.config, "base"):
                folders.append(here.evaluate(name, model, judge, split, file, decoding))
    make_table(folders, None, out / "table.csv", compared_with=[next(iter(given))])
    rows = read_table(out / "table.csv")
    files.write_json(out / "table.json", {"rows": rows})
    return rows


def _sources(config: Config, models: Sequence[str]) -> dict[str, ModelSource | str]:
    """Return where each row's model comes from, or its name in the configuration.

    A row has the name before `=`, or that of the model, or the last part of its path or repository.
    """
    texts: dict[str, str] = {}
    for given in models:
        name, _, text = given.rpartition("=")
        path = text if Path(text).is_dir() else text.partition("@")[0]
        name = name or path.rstrip("/").rpartition("/")[2]
        if name in texts:
            raise ConfigError(f"{texts[name]} and {text} are both {name}: write NAME=MODEL")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", name):
            raise ConfigError(f"{text}: {name!r} cannot name a row: write NAME=MODEL")
        texts[name] = text
    return {n: text if text in config.models else model_source(text) for n, text in texts.items()}


@dataclass(frozen=True)
class _Here:
    """One call of `measure`."""

    config: Config
    task: TaskName
    resources: Path
    out: Path
    memory_mb: int
    threads: int

    def configured(self, name: str) -> Path:
        """Return the directory of a model of the configuration; it is fetched if it is missing."""
        out, source = self.resources / "models" / name, self.config.models[name]
        if source.finetuned and not out.exists():
            raise ConfigError(f"{out} is trained by a run: snakemake --cores all {out}")
        return _fetched(fetch_model, name, source, out)

    def converted(self, name: str, source: ModelSource) -> Path:
        """Return the directory of another model, converted as a run converts its models."""
        out = self.out / "models" / name
        fetch_model(name, source, out)
        tokenizer = load_tokenizer(out)
        (plain,), (whole,) = encode(tokenizer, ["a"]), tokenizer(["a"])["input_ids"]
        if plain == whole:
            return out
        if BEST in tokenizer.get_vocab():
            raise ConfigError(
                f"{name}: its tokenizer puts {BEST} before each prompt, which is not read here: it "
                "is the export of a run, whose own table has its row"
            )
        log.warning("%s: read without the tokens that its tokenizer adds to each text", name)
        return out

    def own_prompts(self, file: Path) -> Path:
        """Return one's own prompts as a file of the schema PROMPTS, without duplicates."""
        source = PromptSource.model_validate(
            {"name": "own", "local": str(file), "format": "lines", "licence": "own"}
        )
        like = self.config.prompts[self.config.tasks[self.task].prompts]
        change: dict[str, Any] = {"sources": (source,), "splits": {}}
        fetched = derive.unsorted(like).model_copy(update=change)
        fetch_prompts("own", fetched, self.out / "prompts")
        return self.out / "prompts/train.parquet"

    def evaluate(
        self, name: str, model: Path, judge: Path, split: str, prompts: Path, decoding: str
    ) -> Path:
        """Evaluate a model on one split under one decoding; return the evaluation's folder."""
        folder = paths.evaluation(paths.run(self.out, self.task, name, SEED), split, decoding)
        generations, likelihoods = (folder / f"{n}.parquet" for n in ("generations", "likelihoods"))
        place = self.config, self.task, "base", SEED, split, decoding
        sample_stage(derive.generate(*place), prompts, model, [], generations, self.memory_mb)
        scores = {"scores": self.config.tasks[self.task].scorer}
        if (second := self.config.tasks[self.task].second_scorer) is not None:
            scores["second_scores"] = second
        for table, scorer in scores.items():
            score_stage(
                derive.score(self.config, scorer),
                generations,
                folder / f"{table}.parquet",
                fetched_classifier(self.config, scorer, self.resources),
                self.resources / CACHE,
                threads=self.threads,
            )
        how = derive.judge(self.config)
        judge_stage(
            how, generations, model, judge, likelihoods, self.memory_mb, threads=self.threads
        )
        predictions = None
        if (predict := derive.predict(self.config, self.task, "base", split)) is not None:
            predictions = folder.parent / "predictions.parquet"
            if not predictions.exists():  # another decoding may have made it
                predict_stage(predict, prompts, model, [], predictions, self.memory_mb)
        again = folder / "second_scores.parquet" if second else None
        settings = derive.evaluate(*place).model_copy(update={"method": name, "model": name})
        evaluate_stage(
            settings,
            generations,
            folder / "scores.parquet",
            likelihoods,
            folder / "metrics.json",
            costs=[folder / f"{stage}.json" for stage in ("generations", "scores")],
            predictions=predictions,
            second=again,
        )
        return folder


def fetched_classifier(config: Config, scorer: str, resources: Path) -> Path | None:
    """Return the directory of a scorer that is a classifier; None: it is none.

    A classifier that is missing is fetched.

    Raises:
        ConfigError: what lies there comes from another source than the configuration says.
        ResourceError: it cannot be fetched.
    """
    if scorer not in config.classifiers:
        return None
    source = derive.source(config.classifiers[scorer])
    return _fetched(fetch_classifier, scorer, source, resources / "classifiers" / scorer)


def splits_of(config: Config, task: TaskName, resources: Path) -> dict[str, Path]:
    """Return the files of a task's test splits; prompts that are missing are fetched.

    Raises:
        ConfigError: the prompts must be made by a run, or come from another source than the
            configuration says.
        ResourceError: they cannot be fetched.
    """
    own = config.tasks[task]
    folder, prompts = resources / "prompts" / own.prompts, config.prompts[own.prompts]
    if prompts.sorted is not None and not folder.exists():
        raise ConfigError(f"{folder} is made by a run: snakemake --cores all {folder}")
    _fetched(fetch_prompts, own.prompts, derive.unsorted(prompts), folder)
    return {split: folder / f"{split}.parquet" for split in own.splits}


def _fetched(fetch: Callable[[str, S, Path], object], name: str, source: S, folder: Path) -> Path:
    """Fetch what is missing; refuse what comes from another source than the configuration says."""
    if not folder.exists():
        fetch(name, source, folder)
    made = files.read_json(folder / "manifest.json")["source"]
    if made != source.model_dump(mode="json", exclude_none=True):
        raise ConfigError(
            f"{folder} comes from another source than the configuration says: name another "
            "--resources, or fetch it again: " + files.again(folder)
        )
    return folder


def model_source(text: str) -> ModelSource:
    """Return where a model comes from: a directory, or a repository of the Hugging Face hub.

    Raises:
        ConfigError: it is neither, or the hub does not know its newest commit.
    """
    repository, _, commit = text.partition("@")
    if Path(text).is_dir():
        where: dict[str, Any] = {"local": text}
    elif re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        revision = commit or _newest(repository)
        where = {"hub": {"repository": repository, "revision": revision}}
    else:
        raise ConfigError(
            f"{text}: no such directory, no model of the configuration, and no name of a "
            "repository such as OWNER/NAME"
        )
    try:
        return ModelSource.model_validate({**where, "licence": "not looked up"})
    except ValidationError as error:
        raise ConfigError(f"{text}: {error}") from None


def _newest(repository: str) -> str:
    """Return the newest commit of a repository of the Hugging Face hub."""
    import huggingface_hub
    from httpx2 import HTTPError

    try:
        found = huggingface_hub.HfApi().model_info(repository).sha
    except (OSError, ValueError, HTTPError) as error:
        raise ConfigError(f"{repository}: the hub gives no commit: {error}") from None
    if found is None:
        raise ConfigError(f"{repository}: the hub gives no commit; write {repository}@COMMIT")
    return found
