"""Pretrained models and prompts, fetched once and written in the form every stage reads.

Layer 4: the prompts that come without a published score are scored by `quark.scorers`.
"""

from quark.resources.fetch import ResourceError
from quark.resources.models import fetch_model
from quark.resources.prompts import fetch_prompts

__all__ = ["ResourceError", "fetch_model", "fetch_prompts"]
