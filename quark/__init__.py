"""Quark: reinforced unlearning of toxicity, sentiment and repetition in language models.

Lu et al., "Quark: Controllable Text Generation with Reinforced Unlearning", NeurIPS 2022
(arXiv 2205.13636). A module imports only from lower layers; `docs/architecture.md` lists them.
"""

__version__ = "0.1.0"
