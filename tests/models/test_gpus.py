"""Each job takes a GPU of its own; processes without any stand in for jobs with one."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import pytest
import torch

from quark.models import gpus

JOB = """
import sys
from pathlib import Path
from quark.models.gpus import take
print(take(sys.argv[2:], Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


class Job:
    """A process that takes a GPU and holds it until it is ended."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", JOB, str(folder), *names],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        self.took = self.process.stdout.readline().strip()

    def end(self, kill: bool = False) -> None:
        if kill:
            self.process.kill()
        self.process.communicate()


def test_jobs_take_different_gpus_until_they_end(tmp_path: Path) -> None:
    first, second = Job(tmp_path, "a", "b"), Job(tmp_path, "a", "b")
    third = Job(tmp_path, "a", "b")
    assert [job.took for job in (first, second, third)] == ["0", "1", "None"]
    first.end(kill=True)  # also by a signal
    fourth = Job(tmp_path, "b", "a")  # it sees them in another order
    assert fourth.took == "1"
    for job in (second, third, fourth):
        job.end()


@pytest.fixture
def chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The GPUs that this process made the current one, on a machine with two."""
    made: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda i: SimpleNamespace(uuid="ab"[i])
    )
    monkeypatch.setattr(torch.cuda, "set_device", made.append)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    held: list[IO[str]] = []
    monkeypatch.setattr(gpus, "_held", held)
    monkeypatch.delenv("RANK", raising=False)
    yield made
    for file in held:
        file.close()


def test_the_first_free_one_is_made_the_current_one_once(chosen: list[int]) -> None:
    gpus.take_gpu()
    gpus.take_gpu()
    assert chosen == [0]


def test_processes_of_torchrun_keep_theirs(
    chosen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    gpus.take_gpu()
    assert chosen == []


def test_one_gpu_needs_no_choice(chosen: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    gpus.take_gpu()
    assert chosen == []


def test_a_job_shares_if_all_are_used(
    chosen: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gpus, "take", lambda names: None)
    monkeypatch.setattr("os.getpid", lambda: 7)
    with caplog.at_level("INFO"):
        gpus.take_gpu()
    assert chosen == [1] and "all 2 GPUs are used" in caplog.text
