"""Draw the figures of README and docs from the committed tables: `make pictures`."""

import tempfile
from pathlib import Path
from shutil import copy

from quark.reporting.figures.tradeoff import draw_tradeoff

DOCS = Path(__file__).parent
TABLES = {
    "tradeoff": "toxicity_equal-2026-11-29b.csv",
    "tradeoff_2026": "toxicity_2026-2026-11-29.csv",
}
"""Each picture and the table in docs/results that it is drawn from."""


def draw(out: Path) -> None:
    """Write each picture as an SVG into the folder `out`."""
    for name, table in TABLES.items():
        with tempfile.TemporaryDirectory() as folder:
            draw_tradeoff([DOCS / "results" / table], Path(folder) / f"{name}.svg")
            copy(Path(folder) / f"{name}.svg", out)


if __name__ == "__main__":
    draw(DOCS / "pictures")
