from pathlib import Path
from typing import Any

import pytest

from quark.config import (
    ConfigError,
    RewardTokens,
    Training,
)
from quark.models.checkpoint import check_resumed
from quark.stages import train
from quark.stages.settings import TrainSettings


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("iteration", 0, "iteration is 0, these settings need 1"),
        ("quantiles", 4, "quantiles is 4, these settings need 3"),
        ("reward_tokens", {"form": "linear"}, "reward_tokens is {'form': 'linear'}"),
        ("trained_layers", 2, "trained_layers is 2, these settings need None"),
        ("precision", "bf16", "precision is bf16, these settings need fp32"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(
    training: Training, key: str, value: Any, text: str
) -> None:
    form = RewardTokens(form="embedding")
    settings = TrainSettings(
        version=1,
        stream="s",
        seed=1,
        iteration=2,
        iterations=3,
        quantiles=3,
        reward_tokens=form,
        training=training,
        precision="fp32",
    )
    about = {"iteration": 1, "quantiles": 3, "reward_tokens": form.model_dump()}
    wanted = train._expected(settings)
    check_resumed(Path("c"), about, wanted)
    with pytest.raises(ConfigError, match=f"c: {text}"):
        check_resumed(Path("c"), about | {key: value}, wanted)
