"""What a profile says of the machines that run the jobs.

Only `auto_precision` can change a result, in a directory without `results/precision.json`.

A profile for a cluster sets these keys with Snakemake's `config`; `--config` sets them on the
command line. They are no keys of the configuration files, which describe the experiment.
"""

import math
from collections.abc import MutableMapping
from typing import Any, Literal

from pydantic import Field, ValidationError

from quark.config.parsing import ConfigError
from quark.config.types import Count, Positive, Precision, Section

MARGIN = 2
"""How many times the planned time a job gets."""
SPARE = 15
"""Minutes added to each job, to start, load and write."""


class Site(Section):
    """The machines."""

    auto_precision: Precision | None = Field(
        None, description="the meaning of `precision: auto`; null: measured before the first job"
    )
    threads: Count | None = Field(
        None, description="cores of a job with a model; null: all that --cores gives"
    )
    tflops: Positive | None = Field(
        None,
        description="TFLOP/s that the jobs with a model reach, about 30 % of a GPU's data sheet; "
        "the time of most of them is then planned; null: the times of the rules",
    )
    longest: Count | None = Field(
        None, description="minutes that the partitions allow a job; null: no limit"
    )
    checkpoints: Literal["all", "last"] = Field(
        "all",
        description="last: once the next iteration is trained, the checkpoint before it is deleted",
    )
    vllm_python: str | None = Field(
        None, description="the Python of an environment with vLLM, for `tasks.TASK.vllm`"
    )
    image: str | None = Field(
        None, description="the image in which `--sdm apptainer` runs the jobs; null: none"
    )

    def minutes(self, usual: int, planned: float | None, attempt: int = 1) -> int:
        """The time that a job asks for, in minutes.

        Args:
            usual: the time of its rule.
            planned: seconds that the plan expects; None: not known, so `usual` counts.
            attempt: how often the job was submitted, this time included; each time it gets more.
        """
        asked = usual if planned is None else SPARE + MARGIN * math.ceil(planned / 60)
        asked *= attempt
        return asked if self.longest is None else min(asked, self.longest)


def take_site(over: MutableMapping[str, Any]) -> Site:
    """Take the keys of the machines out of what the command line or a profile sets.

    Raises:
        ConfigError: a value is not allowed.
    """
    own = {name: over.pop(name) for name in Site.model_fields if name in over}
    try:
        return Site.model_validate(own)
    except ValidationError as error:
        faults = [
            f"{fault['loc'][0]} = {fault['input']!r}: {fault['msg']}" for fault in error.errors()
        ]
        raise ConfigError("--config: " + "; ".join(faults)) from None
