"""A module imports only from lower layers (house rule; see CONTRIBUTING.md)."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = {
    0: [
        "__init__",
        "config",
        "files",
        "precision",
        "progress",
        "schemas",
        "seeds",
        "settings",
        "shards",
    ],
    1: ["gae", "ngrams", "nucleus", "objective", "quantiles"],
    2: [
        "attention",
        "checkpoint",
        "decoding",
        "distributed",
        "lm",
        "lora",
        "logprobs",
        "memo",
        "memory",
        "pool",
        "predicting",
        "reading",
        "reward_tokens",
        "sampling",
        "tracking",
        "training",
        "trunk",
        "weights",
        "workers",
    ],
    3: ["metrics", "scorers", "threads"],
    4: [
        "calibration",
        "card",
        "comparing",
        "corpus",
        "evaluation",
        "figures",
        "gathering",
        "planning",
        "report",
        "resources",
        "scoring",
        "status",
        "tables",
        "tasks",
    ],
    5: ["methods"],
    6: [
        "baselines",
        "benchmarks",
        "exported",
        "exporting",
        "finetuning",
        "judging",
        "stages",
        "trying",
    ],
    7: ["cli"],
}
PEERS = {0, 2, 4}  # layers whose modules may import each other, without a cycle
LAYER = {room: layer for layer, rooms in LAYERS.items() for room in rooms}
FILES = sorted((ROOT / "quark").rglob("*.py"))


def room(file: Path) -> str:
    """The module of quark/, or the package in it, that holds `file`."""
    return file.relative_to(ROOT / "quark").parts[0].removesuffix(".py")


def imports(file: Path, in_functions: bool = True) -> Iterator[str]:
    """Full names of what `file` imports, relative imports as `.name`."""
    waiting: list[ast.AST] = [ast.parse(file.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif in_functions or not isinstance(node, ast.FunctionDef):
            waiting += ast.iter_child_nodes(node)


def rooms(file: Path, in_functions: bool = True) -> set[str]:
    """The rooms of quark/ that `file` imports from; `__init__` for quark's own names."""
    names = [name.split(".") for name in imports(file, in_functions)]
    own = [name[1] for name in names if name[0] == "quark" and len(name) > 1]
    return {name if name in {room(file) for file in FILES} else "__init__" for name in own}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_only_from_lower_layers(file: Path) -> None:
    here = room(file)
    assert here in LAYER, f"quark/{here} has no layer: place it in LAYERS of {__file__}"
    assert not [name for name in imports(file) if name.startswith(".")], "import by full name"
    for other in rooms(file) - {here}:
        assert other in LAYER, f"quark/{other} has no layer: place it in LAYERS of {__file__}"
        lower, peer = LAYER[other] < LAYER[here], LAYER[other] == LAYER[here] in PEERS
        assert lower or peer, f"{here} (layer {LAYER[here]}) imports {other} (layer {LAYER[other]})"


def test_no_cycle() -> None:
    graph = TopologicalSorter[str]()
    for file in FILES:
        graph.add(room(file), *rooms(file) - {room(file)})
    graph.prepare()  # CycleError names the modules


def test_libraries_stay_in_their_rooms() -> None:
    for file in FILES:
        libraries = {name.split(".")[0] for name in imports(file)}
        assert "snakemake" not in libraries, f"{file}: the package does not know the workflow"
        assert "mlflow" not in libraries or room(file) == "tracking", f"{file}: only tracking may"


def test_tables_and_judging_start_without_torch_and_mlflow() -> None:
    reached, waiting = set(), {"tables", "judging"}
    while waiting:
        reached |= (found := waiting)
        files = [file for file in FILES if room(file) in found]
        libraries = {name.split(".")[0] for file in files for name in imports(file, False)}
        assert not libraries & {"torch", "transformers", "mlflow"}, f"in {sorted(found)}"
        waiting = {other for file in files for other in rooms(file, False)} - reached
