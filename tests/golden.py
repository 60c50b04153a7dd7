"""What the rules depend on in each shipped configuration, as short checksums in golden.json.

    python tests/golden.py        # writes tests/inputs/golden.json anew: look at its diff

A changed line says which rules a change makes run again, in which configuration and task.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quark.config import load, resolved
from quark.stages.graph import Graph

ROOT = Path(__file__).parents[1]
FILE = ROOT / "tests/inputs/golden.json"
DEFAULT = ROOT / "config/config.yaml"
LAID_OVER = sorted((ROOT / "config/scale").glob("*.yaml")) + sorted(
    (ROOT / "config/corpus").glob("*.yaml")
)


def files(graph: Graph, task: str) -> Iterator[tuple[str, Any]]:
    """What the graph says of a task's files, by name."""
    own = graph.task(task)
    for method in (*own.methods, *(name for t, name in graph.variants if t == task)):
        for seed in graph.config.seeds:
            yield "checkpoints", graph.checkpoints(task, method, seed)
            yield "training costs", graph.training_costs(task, method, seed)
    yield "costs", graph.costs(task)
    yield "figures", graph.figures(task)
    yield "shown", graph.shown(task, "generations.parquet")
    yield "logged", [graph.logged(task, method, 1) for method in own.methods]


def checksums() -> dict[str, dict[str, str]]:
    """A checksum of each stage's settings, by configuration and task."""
    made: dict[str, dict[str, str]] = {}
    for laid_over in (None, *LAID_OVER):
        config = resolved(load([DEFAULT, *([laid_over] if laid_over else [])]), "bf16")
        graph = Graph(config)
        for task in config.tasks:
            stages: dict[str, list[Any]] = {}
            for verb, _, settings in graph.settings(task):
                stages.setdefault(verb, []).append(settings.model_dump(mode="json"))
            for name, found in files(graph, task):
                stages.setdefault(name, []).append(found)
            title = f"{laid_over.stem if laid_over else 'default'}: {task}"
            made[title] = {
                stage: hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:8]
                for stage, plain in stages.items()
            }
    return made


if __name__ == "__main__":
    FILE.write_text(json.dumps(checksums(), indent=1) + "\n")
