"""Quark: reinforced unlearning of toxicity, sentiment and repetition in language models.

Lu et al., "Quark: Controllable Text Generation with Reinforced Unlearning", NeurIPS 2022
(arXiv 2205.13636). A module imports only from lower layers; `docs/architecture.md` lists them.

The names in `PUBLIC` can be imported from here, and are loaded when they are;
`docs/reference/python.md` shows them at work.
"""

from importlib import import_module
from typing import Any

__version__ = "1.0.0"

PUBLIC = {
    "Plain": "generation.decoding",
    "Trial": "tools.demo",
    "decode": "models.lm",
    "encode": "models.lm",
    "export": "tools.export",
    "fused_token_loss": "maths.objective",
    "load_model": "models.lm",
    "load_policy": "models.checkpoint",
    "load_scorer": "scorers",
    "load_tokenizer": "models.lm",
    "measure": "tools.measure",
    "ranks": "core.seeds",
    "sample": "generation.sampler",
    "token_loss": "maths.objective",
}
"""What is meant to be used from Python, and the module that holds it."""


def __getattr__(name: str) -> Any:
    """A public name; importing the package alone loads neither torch nor transformers."""
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *PUBLIC]
