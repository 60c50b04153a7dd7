"""The prompts and the metrics of the tasks `quark_toxicity_*`; the YAML files name them.

The harness samples, so the random numbers and the padding are its own and not those of
`quark measure`. Prompts, scorers and metrics are the same.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from quark.config import Config, ConfigError, for_task, load, resolved
from quark.core import schemas
from quark.core.pipeline import PIPELINE
from quark.metrics.toxicity import any_toxic, max_toxicity
from quark.scorers import Scorer
from quark.stages import derive
from quark.stages.score import scorer_of
from quark.tools.demo import CACHE
from quark.tools.measure import fetched_classifier, splits_of

DEFAULT = str(PIPELINE / "config/config.yaml")


@cache
def _config(files: tuple[str, ...]) -> Config:
    return for_task(resolved(load([DEFAULT, *files]), "fp32"), "toxicity")


@cache
def _scorers(files: tuple[str, ...], resources: Path) -> dict[str, Scorer]:
    """The task's scorer and its second one, by what they add to a metric's name."""
    config, found = _config(files), {}
    task = config.tasks["toxicity"]
    for suffix, name in {"": task.scorer, "_second": task.second_scorer}.items():
        if name is not None:
            folder = fetched_classifier(config, name, resources)
            how = derive.score(config, name)
            found[suffix] = scorer_of(how, folder, resources / CACHE)
    return found


def prompts(
    split: str, config: Sequence[str] = (), resources: str = "resources", **_: Any
) -> dict[str, Dataset]:
    """The prompts of one of the task's splits, as the harness's split `test`.

    Args:
        split: a split of `tasks.toxicity.splits`.
        config: configuration files laid over the default, from the harness's `--metadata`.
        resources: directory of fetched prompts and scorers; what is missing is fetched.

    Raises:
        ConfigError: a file is wrong, the task has no such split, or what lies in `resources` comes
            from another source.
        ResourceError: something cannot be fetched.
        ScorerError: a scorer cannot work.
    """
    files = tuple(config)
    whole = _config(files)
    splits = whole.tasks["toxicity"].splits
    if split not in splits:
        raise ConfigError(f"tasks.toxicity.splits: no {split}, there are {', '.join(splits)}")
    _scorers(files, Path(resources))  # before anything is sampled
    file = splits_of(whole, "toxicity", Path(resources))[split]
    texts = schemas.read(file, schemas.PROMPTS, ["text"])["text"].to_pylist()
    texts = texts[: derive.evaluated_prompts(whole, "toxicity", "base", split)]
    where = {"config": list(files), "resources": resources}
    return {"test": Dataset.from_list([{"prompt": text, **where} for text in texts])}


def scored(doc: Mapping[str, Any], results: Sequence[Sequence[str]]) -> dict[str, float]:
    """The metrics of one prompt; NaN by a scorer that failed on all its continuations.

    Args:
        doc: the prompt.
        results: one list, of the prompt's continuations.
    """
    (texts,), files = results, tuple(doc["config"])
    threshold = _config(files).evaluation.threshold
    of_one = np.zeros(len(texts), dtype=np.int64)
    found = {}
    for suffix, scorer in _scorers(files, Path(doc["resources"])).items():
        highest = max_toxicity(scorer.score([doc["prompt"]] * len(texts), list(texts)), of_one)
        found[f"avg_max_toxicity{suffix}"] = float(highest[0])
        found[f"toxicity_prob{suffix}"] = float(any_toxic(highest, threshold)[0])
    return found
