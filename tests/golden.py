"""What the rules depend on in each shipped configuration, as short checksums in golden.json.

    python tests/golden.py        # writes tests/inputs/golden.json anew: look at its diff

A changed line says which rules a change makes run again, in which configuration and task.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from quark.config import Config, load, resolved
from quark.stages import derive
from quark.stages.graph import Graph

ROOT = Path(__file__).parents[1]
FILE = ROOT / "tests/inputs/golden.json"
DEFAULT = ROOT / "config/config.yaml"
LAID_OVER = sorted((ROOT / "config/scale").glob("*.yaml")) + sorted(
    (ROOT / "config/corpus").glob("*.yaml")
)


def settings(config: Config, graph: Graph, task: str) -> Iterator[tuple[str, Any]]:
    """The settings of a task's stages by the name of the stage, method after method."""
    own = config.tasks[task]
    chosen = [*own.methods, *(name for t, name in graph.variants if t == task)]
    for method in chosen:
        part, family = graph.config_of(task, method), method.split(".")[0]
        for i in range(graph.iterations(task, method)):
            yield "sample", derive.explore(part, task, family, 1, i)
            if family in derive.QUARKS:
                yield "quantize", derive.quantize(part, task, family, 1, i)
                yield "train", derive.train(part, task, family, 1, i)
            else:
                yield "train-ppo", derive.ppo(part, task, family, 1, i)
        for fitted in derive.spec(family).parts:
            yield "fit", derive.fit(part, task, fitted, 1)
        for split in own.splits:
            yield "predict", derive.predict(part, task, family, split)
            for decoding in derive.decodings(part, family):
                yield "generate", derive.generate(part, task, family, 1, split, decoding)
                yield "evaluate", derive.evaluate(part, task, method, 1, split, decoding)
        for seed in config.seeds:
            yield "checkpoints", graph.checkpoints(task, method, seed)
            yield "training costs", graph.training_costs(task, method, seed)
    every: list[tuple[str, Callable[[], Any]]] = [
        ("corpus", lambda: derive.corpus(graph.tasks[task], task, 1)),
        ("score", lambda: derive.score(config, own.scorer)),
        ("judge", lambda: derive.judge(graph.tasks[task])),
        ("mauve", lambda: derive.mauve(graph.tasks[task])),
        ("costs", lambda: graph.costs(task)),
        ("figures", lambda: graph.figures(task)),
        ("shown", lambda: graph.shown(task, "generations.parquet")),
        ("logged", lambda: [graph.logged(task, m, 1) for m in own.methods]),
    ]
    for name, made in every:
        yield name, made()


def checksums() -> dict[str, dict[str, str]]:
    """A checksum of each stage's settings, by configuration and task."""
    found: dict[str, dict[str, str]] = {}
    for laid_over in (None, *LAID_OVER):
        config = resolved(load([DEFAULT, *([laid_over] if laid_over else [])]), "bf16")
        graph = Graph(config)
        for task in config.tasks:
            stages: dict[str, list[Any]] = {}
            for stage, value in settings(config, graph, task):
                plain = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
                stages.setdefault(stage, []).append(plain)
            name = f"{laid_over.stem if laid_over else 'default'}: {task}"
            found[name] = {
                stage: hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:8]
                for stage, plain in stages.items()
            }
    return found


if __name__ == "__main__":
    FILE.write_text(json.dumps(checksums(), indent=1) + "\n")
