"""Pretrained models and prompts, fetched once and written in the form that every stage reads.

The prompts that come without a published score are scored by `quark.scorers`.
"""

from quark.data.fetch import ResourceError
from quark.data.models import fetch_model
from quark.data.prompts import fetch_prompts

__all__ = ["ResourceError", "fetch_model", "fetch_prompts"]
