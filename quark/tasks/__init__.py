"""What a task wants of a text: the reward that Quark raises, from the score its scorer gives.

To add a task see `docs/adding-a-task.md`.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from quark.tasks import toxicity

Reward = Callable[[NDArray[np.float64]], NDArray[np.float64]]

REWARDS: dict[str, Reward] = {"toxicity": toxicity.reward}
