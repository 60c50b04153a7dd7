"""Snakemake in a directory of its own, on the tiny random model, as `make tiny` runs it."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import fork_server
import pytest
import yaml

ROOT = Path(__file__).parents[2]
TABLE = "results/tables/toxicity.csv"
SCALE = "config/scale/test.yaml"
# One split and two samples: as many kinds of job as ever, half as many jobs.
SMALLER = {"tasks": {"toxicity": {"splits": ["nontoxic"]}}, "evaluation": {"samples": 2}}


class Workspace:
    """A working directory whose Snakefile, rules and configuration are the repository's own.

    `python`: runs Snakemake, whose jobs run the `quark` that stands beside it.
    """

    python = Path(sys.executable)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tests").mkdir(parents=True)
        for part in ("Snakefile", "config", "profiles", "workflow", "tests/inputs"):
            (folder / part).symlink_to(ROOT / part)
        self.configure("smaller.yaml", SMALLER)

    def configure(self, name: str, content) -> str:
        """Write a configuration file to lay over the others; return its name."""
        (self.folder / name).write_text(yaml.safe_dump(content))
        return name

    def start(
        self, *options: str, scale: str = SCALE, config: tuple[str, ...] = (), targets=(TABLE,)
    ):
        """Start Snakemake at the scale of tests, or another; `config` is laid over that."""
        command = [self.python, "-m", "snakemake", "--cores", "2", *options]
        layers = [scale, "smaller.yaml", *config]
        folders = [str(Path(sys.executable).parent), os.environ["PATH"]]
        return subprocess.Popen(
            # `--` because --configfile takes all that follows it
            [*command, "--configfile", *layers, "--", *targets],
            cwd=self.folder,
            env={**os.environ, "PATH": os.pathsep.join(folders)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # a group of its own, so that all its jobs can be killed
        )

    def run(self, *options: str, fails: bool = False, **how) -> str:
        """Run Snakemake to its end and return what it printed."""
        process = self.start(*options, **how)
        printed, _ = process.communicate(timeout=600)
        assert (process.returncode != 0) == fails, printed
        return printed

    def planned(self, *options: str, **how) -> Counter[str]:
        """How many jobs of each rule would run now."""
        return jobs(self.run("--dry-run", *options, **how))

    def copy(self, folder: Path) -> "Workspace":
        """The same directory once more, with its files' times and Snakemake's records."""
        shutil.copytree(self.folder, folder, symlinks=True)
        twin = object.__new__(Workspace)
        twin.folder = folder
        return twin


def jobs(printed: str) -> Counter[str]:
    """Jobs of each rule among what Snakemake printed; a dry run ends by saying that it was one."""
    return Counter(re.findall(r"^(?:local)?rule (\w+):$", printed, re.MULTILINE))


@pytest.fixture(scope="session", autouse=True)
def forked_quark(tmp_path_factory):
    """Let the jobs of all workspaces run in forks of one process, which has imported all."""
    if sys.platform != "linux":  # where a process with loaded libraries may not fork safely
        yield
        return
    folder = tmp_path_factory.mktemp("fork-server")
    server = fork_server.start(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Workspace, "python", folder / "bin/python")
        yield
    server.kill()
    server.communicate()


@pytest.fixture(scope="session")
def new_workspace() -> type[Workspace]:
    return Workspace


@pytest.fixture
def empty(tmp_path) -> Workspace:
    return Workspace(tmp_path / "run")


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Workspace:
    """A whole run, made once for all tests; they must only read it or copy it."""
    workspace = Workspace(tmp_path_factory.mktemp("workflow") / "run")
    workspace.run()
    return workspace
