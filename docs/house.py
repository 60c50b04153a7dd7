"""Draw the folders of `quark/` and who imports whom, from the code itself: docs/house.svg.

    python docs/house.py        # writes the picture anew, and the table of docs/architecture.md

A folder stands above all that it imports. An arrow is left out where a longer way says the same.
"""

import ast
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "quark"
FILES = sorted(PACKAGE.rglob("*.py"))
BEGIN, END = "<!-- made by docs/house.py -->", "<!-- end -->"
WIDTH, HEIGHT, GAP, BETWEEN = 132, 40, 16, 34


def folder(file: Path) -> str:
    """The folder of `quark/` that holds a file; its own `__init__` has none, and no arrow."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(file: Path, in_functions: bool = True) -> Iterator[str]:
    """Full names of what a file imports, relative imports as `.name`."""
    waiting: list[ast.AST] = [ast.parse(file.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            pass  # for the type checker alone
        elif in_functions or not isinstance(node, ast.FunctionDef):
            waiting += ast.iter_child_nodes(node)


def modules(file: Path, in_functions: bool = True) -> set[Path]:
    """The files of `quark/` that a file imports."""
    found = set()
    for name in imports(file, in_functions):
        parts = name.split(".")
        if parts[0] != "quark":
            continue
        for end in range(len(parts), 0, -1):  # a.b.c may be module b's name c
            place = ROOT.joinpath(*parts[:end])
            if (module := place.with_suffix(".py")).exists() or (
                module := place / "__init__.py"
            ).exists():
                found.add(module)
                break
    return found - {file}


def arrows() -> dict[str, set[str]]:
    """The folders that each folder imports."""
    found: dict[str, set[str]] = {}
    for file in FILES:
        others = {folder(other) for other in modules(file)} - {"__init__", folder(file)}
        found.setdefault(folder(file), set()).update(others)
    del found["__init__"]
    return found


def levels(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """The folders from the top; each is one level above the highest that it imports.

    Raises:
        graphlib.CycleError: two folders import each other; it names them.
    """
    height: dict[str, int] = {}
    for name in TopologicalSorter(graph).static_order():
        height[name] = 1 + max((height[other] for other in graph[name]), default=-1)
    top = max(height.values())
    return [sorted(n for n, h in height.items() if h == level) for level in range(top, -1, -1)]


def shortest(graph: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The arrows that no other way replaces."""
    reach: dict[str, set[str]] = {}
    for name in TopologicalSorter(graph).static_order():
        reach[name] = graph[name].union(*(reach[other] for other in graph[name]))
    return {
        name: {o for o in others if not any(o in reach[p] for p in others)}
        for name, others in graph.items()
    }


def says(name: str) -> str:
    """The first line of a folder's docstring."""
    text = ast.get_docstring(ast.parse((PACKAGE / name / "__init__.py").read_text()))
    assert text, f"quark/{name}/__init__.py says nothing"
    return text.split("\n")[0]


def table(graph: Mapping[str, set[str]]) -> str:
    """The folders from the top, as Markdown."""
    rows = ["| folder | what it holds |", "|---|---|"]
    rows += [f"| `{name}/` | {says(name)} |" for level in levels(graph) for name in level]
    return "\n".join(rows)


def picture(graph: Mapping[str, set[str]]) -> str:
    """The folders as boxes, level above level, as SVG."""
    rows = levels(graph)
    across = max(map(len, rows)) * (WIDTH + GAP) + GAP
    place = {}
    for y, row in enumerate(rows):
        left = (across - len(row) * (WIDTH + GAP) + GAP) / 2
        for x, name in enumerate(row):
            place[name] = left + x * (WIDTH + GAP), GAP + y * (HEIGHT + BETWEEN)
    down = GAP + len(rows) * (HEIGHT + BETWEEN) - BETWEEN + GAP
    lines, boxes = [], []
    for name, others in sorted(shortest(graph).items()):
        x, y = place[name]
        middle = x + WIDTH / 2
        boxes.append(
            f'<g><title>{escape(says(name))}</title><rect x="{x:g}" y="{y:g}" width="{WIDTH}" '
            f'height="{HEIGHT}" rx="6"/><text x="{middle:g}" y="{y + 25:g}">{name}</text></g>'
        )
        for other in sorted(others):
            u, v = place[other][0] + WIDTH / 2, place[other][1] - 4
            begin, bend = f"M{middle:g} {y + HEIGHT:g}", f"{middle:g} {y + HEIGHT + 24:g}"
            lines.append(f'<path d="{begin} C{bend} {u:g} {v - 20:g} {u:g} {v:g}"/>')
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {across:g} {down:g}" '
            'font-family="sans-serif" font-size="14" text-anchor="middle">',
            "<title>The folders of quark/: an arrow points to what a folder imports</title>",
            '<defs><marker id="tip" viewBox="0 0 6 6" refX="3" refY="3" markerWidth="6" '
            'markerHeight="6" orient="auto"><path d="M0 0L6 3L0 6z" fill="#888"/></marker></defs>',
            f'<rect width="{across:g}" height="{down:g}" fill="#fff"/>',
            '<g fill="none" stroke="#888" marker-end="url(#tip)">',
            *lines,
            '</g>\n<g fill="#eef3fa" stroke="#456">',
            *(box.replace("<text", '<text fill="#123" stroke="none"') for box in boxes),
            "</g>\n</svg>\n",
        ]
    )


def with_table(text: str, made: str) -> str:
    """A page whose part between the two marks is `made`."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{made}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    found = arrows()
    (ROOT / "docs/house.svg").write_text(picture(found))
    page = ROOT / "docs/architecture.md"
    page.write_text(with_table(page.read_text(), table(found)))
