"""A round of a method that learns from its own samples, without a run."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from quark.config import load
from quark.models.lm import Policy
from quark.models.reference_cache import ReferenceCache
from quark.training.rounds import Round
from quark.training.trainer import Rows

CONFIG = load([Path(__file__).parents[1] / "config/config.yaml"])


def settings(method: str, **changed: Any) -> Any:
    """The default's settings of a method, made quick, with these changed."""
    own: Any = CONFIG.plugin(method)
    quick = {"batch": 16, "warmup_steps": 0, "token_learning_rate": 1e-2, "iterations": 1}
    return type(own.training).model_validate(own.training.model_dump() | quick | changed)


def sampled(policy: Policy, count: int) -> Rows:
    """Responses of four tokens, from the policy's own distribution."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    prompts = rng.integers(20, 90, (count, 3)).tolist()
    ids = torch.tensor(prompts)
    with torch.no_grad():
        for _ in range(4):
            distribution = policy.lm(ids).logits[:, -1].softmax(-1)
            ids = torch.cat([ids, torch.multinomial(distribution, 1)], dim=1)
    names = list(map(str, range(count)))
    return Rows(names, prompts, ids[:, 3:].tolist(), np.zeros(count, dtype=np.int32))


def given(policy: Policy, base: Policy, rows: Rows, reward: np.ndarray, **changed: Any) -> Round:
    """The first and only round."""
    fixed = {"min_new_tokens": 0, "iteration": 0, "share": 1.0, "precision": "fp32"}
    fixed |= {"seed_name": "1/test", "memory_mb": 4000, "cache": ReferenceCache(), "before": None}
    fixed["group"] = np.arange(len(reward))
    return Round(policy, base, rows, reward, **(fixed | changed))


def numbers(count: int, *shape: int) -> list[torch.Tensor]:
    """Draw `count` tensors of small random numbers, in float64."""
    generator = torch.Generator().manual_seed(0)
    return [0.3 * torch.randn(*shape, generator=generator).double() for _ in range(count)]
