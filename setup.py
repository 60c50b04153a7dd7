"""Build the package, with the workflow's files in it, for `quark init`; see pyproject.toml."""

import runpy
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


class Build(build_py):
    """Copies the workflow's files beside the modules, but not for an editable installation."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if not self.editable_mode:
            pipeline = runpy.run_path(str(ROOT / "quark/core/pipeline.py"))
            pipeline["copy"](ROOT, Path(self.build_lib) / "quark/pipeline")


setup(cmdclass={"build_py": Build})
