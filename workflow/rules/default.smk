"""Report errors in the default configuration with file and line; Snakemake would report them without.

The clone's folder is put on the path, so that its `quark` is found if none is installed.
"""

import sys

from pathlib import Path

from snakemake.exceptions import WorkflowError

here = workflow.current_basedir.get_path_or_uri(secret_free=True)
if Path(
    here
).is_dir():  # else it is a place on the web, from which another Snakefile includes this
    sys.path.append(str(Path(here).parents[1]))
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
