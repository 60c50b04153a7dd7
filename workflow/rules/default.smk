"""Report errors in the default configuration with file and line; Snakemake would report them without."""

from pathlib import Path

from snakemake.exceptions import WorkflowError

from quark.config import ConfigError, read

DEFAULT = Path("config/config.yaml")

if workflow.is_main_process and DEFAULT.exists():
    try:
        read(DEFAULT)
    except ConfigError as error:
        raise WorkflowError(str(error)) from None
