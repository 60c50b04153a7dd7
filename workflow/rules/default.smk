"""Report errors in the default configuration with file and line; Snakemake would report them without.

The clone's folder is put on the path, so that its `quark` is found if none is installed.
"""

import sys

from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.append(str(Path(workflow.current_basedir).parents[1]))
try:
    from quark.config import ConfigError, read
except ModuleNotFoundError as error:
    raise WorkflowError(
        f"{error}: the rules need this project's package and its libraries beside Snakemake: "
        "`make install` in the clone, or `pip install .` there"
    ) from None

DEFAULT = Path("config/config.yaml")

if workflow.is_main_process and DEFAULT.exists():
    try:
        read(DEFAULT)
    except ConfigError as error:
        raise WorkflowError(str(error)) from None
