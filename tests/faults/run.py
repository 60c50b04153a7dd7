"""Break runs in every way at random moments; each must end with the bytes of an undisturbed one.

    .venv/bin/python tests/faults/run.py --tries 100 --out docs/results/faults.csv
    tests/slurm/with .venv/bin/python tests/faults/run.py --slurm --tries 12 --out faults-slurm.csv

At the scale of tests, in a folder of its own. After each fault the plain command is given again,
after `snakemake --unlock` where Snakemake itself was killed, and after the command that the error
names where a file was damaged. At the end of each run its table and every Parquet file are compared
with those of the undisturbed run, byte by byte. A full disk needs root, for a small file system in
memory; without it that fault is left out, and said.
"""

import argparse
import csv
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
TABLE = "results/tables/toxicity.csv"
SLURM_CONF = Path("/etc/slurm/slurm.conf")
SMALLER = ROOT / "tests/slurm/smaller.yaml"
CONFIG = ["--configfile", "config/scale/test.yaml", str(SMALLER)]
QUIET = 60.0
"""Seconds within which killed processes must be gone."""
FULL = 3
"""Runs on a disk that is too small."""


Command = subprocess.Popen[bytes]


class Run:
    """A working directory, and Snakemake in it."""

    command: tuple[str, ...] = ("snakemake", "--cores", "2")
    slurm = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: dict[int, Path] = {}  # by a command's process id
        (folder / "tests").mkdir(parents=True)
        for part in ("Snakefile", "config", "profiles", "workflow", "tests/inputs"):
            (folder / part).symlink_to(ROOT / part)

    def start(self, *options: str, target: str = TABLE) -> Command:
        """Start the plain command, in a process group of its own."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        said = self.folder / f"said-{len(self.said)}.txt"
        with said.open("w") as out:
            process = subprocess.Popen(
                [*self.command, *options, *CONFIG, "--", target],
                cwd=self.folder,
                env={**os.environ, "PATH": path},
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.said[process.pid] = said
        return process

    def finish(self, *options: str, target: str = TABLE) -> tuple[int, str]:
        """Give the plain command and wait for its end."""
        process = self.start(*options, target=target)
        return process.wait(timeout=900), self.said[process.pid].read_text()

    def processes(self) -> list[psutil.Process]:
        """All that works in this folder."""
        found = psutil.process_iter(["cwd", "cmdline"])
        return [p for p in found if p.info["cwd"] == str(self.folder)]

    def jobs(self) -> list[psutil.Process]:
        """Running verbs."""
        return [
            p for p in self.processes() if any("bin/quark" in a for a in p.info["cmdline"] or ())
        ]

    def parquet(self, pattern: str = "**/*.parquet") -> list[Path]:
        """Finished tables."""
        found = (self.folder / "results").glob(pattern)
        return sorted(p for p in found if not any(part.startswith(".") for part in p.parts))

    def end(self) -> None:
        """End whatever still runs here."""
        deadline = time.monotonic() + QUIET
        while left := self.processes():
            for process in left:
                if time.monotonic() > deadline - QUIET / 2:
                    process.kill()
            assert time.monotonic() < deadline, f"still alive: {left}"
            time.sleep(0.1)


# ----------------------------------------------------------------------------------------- faults
def kill_job(run: Run, process: Command, rng: random.Random) -> str:
    """Kill -9 of a running job; Snakemake sees it fail, and goes on with what does not need it."""
    while process.poll() is None:
        if jobs := run.jobs():
            victim = rng.choice(jobs)
            verb = next((a for a in victim.info["cmdline"][2:3]), "?")
            try:
                victim.kill()
            except psutil.NoSuchProcess:
                continue
            return verb
        time.sleep(0.01)
    return ""


def kill_snakemake(run: Run, process: Command, rng: random.Random) -> str:
    """Kill -9 of Snakemake alone; its jobs go on by themselves, and its lock stays."""
    process.kill()
    process.wait()
    while run.slurm and queue("RUNNING", "PENDING", "COMPLETING"):
        time.sleep(0.5)
    run.end()
    run.finish("--unlock")
    return "snakemake"


def kill_all(run: Run, process: Command, rng: random.Random) -> str:
    """Kill -9 of everything at once, as when the power fails."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    run.end()
    run.finish("--unlock")
    return "all"


def interrupt(run: Run, process: Command, rng: random.Random) -> str:
    """Ctrl-C."""
    os.killpg(process.pid, signal.SIGINT)
    process.wait(timeout=300)
    run.end()
    return "interrupt"


def second_run(run: Run, process: Command, rng: random.Random) -> str:
    """The same command at the same time: it must refuse, and harm nothing."""
    code, printed = run.finish()
    alive = process.poll() is None
    assert code or not alive, "a second run was let in"
    assert not alive or "lock" in printed.lower(), printed
    return "two runs"


def scancel(run: Run, process: Command, rng: random.Random) -> str:
    """A job of SLURM is cancelled while it runs."""
    while process.poll() is None:
        if running := queue("RUNNING"):
            number, name = rng.choice(running)
            subprocess.run(["scancel", number], check=True)
            return name
        time.sleep(0.2)
    return ""


def node_down(run: Run, process: Command, rng: random.Random) -> str:
    """The node goes down under its jobs, and comes back."""
    while process.poll() is None and not queue("RUNNING"):
        time.sleep(0.2)
    if process.poll() is not None:
        return ""
    node = "nodename=node1"
    try:
        subprocess.run(["scontrol", "update", node, "state=down", "reason=test"], check=True)
        time.sleep(2)
    finally:
        # It may be back by itself, which is an error here.
        subprocess.run(["scontrol", "update", node, "state=resume"], capture_output=True)
    asked = ["sinfo", "--noheader", "--format=%T"]
    deadline = time.monotonic() + QUIET
    while "down" in subprocess.run(asked, capture_output=True, text=True, check=True).stdout:
        assert time.monotonic() < deadline, "the node stays down"
        time.sleep(0.5)
    return "node"


def queue(*states: str) -> list[tuple[str, str]]:
    """Number and name of the jobs of SLURM in these states."""
    asked = ["squeue", "--noheader", f"--states={','.join(states)}", "--format=%i|%k"]
    found = subprocess.run(asked, capture_output=True, text=True)
    pairs = [line.partition("|") for line in found.stdout.splitlines()]
    return [(number, name) for number, _, name in pairs]


def _kill_then(damage: Callable[[Run, random.Random], str]) -> Callable[..., str]:
    def fault(run: Run, process: Command, rng: random.Random) -> str:
        kill_all(run, process, rng)
        return damage(run, rng)

    fault.__doc__ = damage.__doc__
    return fault


def truncate(run: Run, rng: random.Random) -> str:
    """A Parquet file loses its second half."""
    file = rng.choice(run.parquet() or [Path()])
    if file == Path():
        return ""
    os.truncate(file, file.stat().st_size // 2)
    return str(file.relative_to(run.folder))


def corrupt(run: Run, rng: random.Random) -> str:
    """One bit of the newest checkpoint turns, which is the likeliest to be read again."""
    files = list(run.folder.glob("results/**/checkpoint/*.safetensors"))
    if not files:
        return ""
    file = max(files, key=lambda f: f.stat().st_mtime_ns)
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content) // 2, len(content))] ^= 1
    file.write_bytes(content)
    return str(file.relative_to(run.folder))


def delete_row(run: Run, rng: random.Random) -> str:
    """A row of a pool, samples or scores goes; the file is a good Parquet file afterwards."""
    files = [f for f in run.parquet() if f.stem in ("pool", "samples", "scores", "generations")]
    if not files:
        return ""
    file = rng.choice(files)
    table = pq.read_table(file)
    row = rng.randrange(table.num_rows)
    kept = [i for i in range(table.num_rows) if i != row]
    pq.write_table(table.take(kept), file)
    return str(file.relative_to(run.folder))


FAULTS: dict[str, Callable[[Run, Command, random.Random], str]] = {
    "kill -9 of a job": kill_job,
    "kill -9 of Snakemake": kill_snakemake,
    "kill -9 of all": kill_all,
    "interrupt": interrupt,
    "two runs at once": second_run,
    "truncated Parquet": _kill_then(truncate),
    "corrupted checkpoint": _kill_then(corrupt),
    "deleted row": _kill_then(delete_row),
}
KILLS = 3
"""So often does each kind of kill come for each other fault."""
SLURM_FAULTS: dict[str, Callable[[Run, Command, random.Random], str]] = {
    "scancel of a job": scancel,
    "node down": node_down,
    "kill -9 of Snakemake, jobs in SLURM": kill_snakemake,
}


# ---------------------------------------------------------------------------------------- recovery
def recover(run: Run, damaged: str) -> int:
    """Give the plain command until the run ends well; return how many files had to be mended.

    Raises:
        AssertionError: it fails for another reason than damage that it names, or damage that is
            still there is not noticed.
    """
    mended = 0
    for _ in range(6):
        code, printed = run.finish()
        if code and "lock" in printed and "unlock" in printed:
            unlocked, said = run.finish("--unlock")
            assert not unlocked, said
            continue
        if not code:
            return mended
        commands = re.findall(r"Make it again, [^:]*: (snakemake .*)", printed)
        assert damaged and commands, printed[-4000:]
        mended += 1
        *_, target, _, forced = shlex.split(commands[0])
        assert target == forced
        code, printed = run.finish("--forcerun", target, target=target)
        assert not code, printed[-4000:]
    raise AssertionError(f"not finished after six tries: {printed[-4000:]}")


def differences(run: Run, reference: Run) -> tuple[int, int]:
    """Rows that differ from those of the undisturbed run, and files whose bytes do."""
    rows = files = 0
    names = {p.relative_to(r.folder) for r in (run, reference) for p in r.parquet()}
    for name in sorted([*names, Path(TABLE)]):
        one, other = run.folder / name, reference.folder / name
        if one.exists() and other.exists() and one.read_bytes() == other.read_bytes():
            continue
        files += 1
        if name.suffix == ".parquet":
            mine, theirs = (
                pq.read_table(f).to_pylist() if f.exists() else [] for f in (one, other)
            )
            rows += sum(row not in mine for row in theirs)
    return rows, files


def full_disk(folder: Path, reference: Run, rng: random.Random) -> None:
    """A run on a file system that is too small, until that has grown."""
    needed = sum(f.stat().st_size for f in reference.folder.rglob("*") if f.is_file())
    size = rng.randrange(needed // 4, 3 * needed // 4)
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        run = Run(folder / "run")
        code, _ = run.finish()
        assert code, f"{size} bytes were enough"
        grown = f"remount,size={10 * needed}"
        subprocess.run(["mount", "-o", grown, "tmpfs", folder], check=True)
        recover(run, "")
        assert differences(run, reference) == (0, 0)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def heal_undetected(run: Run, damaged: str) -> None:
    """What was damaged after its last reader is never read again; it is made anew to compare."""
    if damaged and (run.folder / damaged).exists():
        target = str(Path(damaged).parent) if "checkpoint" in damaged else damaged
        code, printed = run.finish("--forcerun", target, target=target)
        assert not code, printed[-4000:]


COLUMNS = ("tries", "found", "runs", "lost rows", "files that differ")


def write(out: Path, counts: dict[str, Counter[str]]) -> None:
    """What has happened so far; a line for each fault."""
    with out.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["fault", *COLUMNS])
        writer.writerows([name, *(count[c] for c in COLUMNS)] for name, count in counts.items())


def main() -> None:
    """Run the suite."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("faults.csv"))
    parser.add_argument("--only", help="one fault's name")
    parser.add_argument("--slurm", action="store_true", help="run through SLURM, and break that")
    how = parser.parse_args()
    how.out.parent.mkdir(parents=True, exist_ok=True)
    rng = random.Random(how.seed)
    known = SLURM_FAULTS if how.slurm else FAULTS
    if how.slurm:
        ours = SLURM_CONF.is_file() and SLURM_CONF.read_text().startswith("# made by tests/slurm/")
        assert ours, "jobs are cancelled and the node goes down: only within tests/slurm/with"
        Run.slurm = True
        Run.command = (str(ROOT / "tests/slurm/snakemake"),)
    names = [how.only] if how.only else list(known)
    turns = [name for name in names for _ in range(KILLS if "kill" in name else 1)]
    counts: dict[str, Counter[str]] = {name: Counter() for name in names}
    with tempfile.TemporaryDirectory() as scratch:
        reference = Run(Path(scratch) / "undisturbed")
        begun = time.monotonic()
        code, printed = reference.finish()
        assert not code, printed
        length = time.monotonic() - begun
        print(f"an undisturbed run takes {length:.0f} s", flush=True)
        done = number = 0
        while done < how.tries:
            number += 1
            run = Run(Path(scratch) / f"run-{number}")
            shutil.copytree(reference.folder / "resources", run.folder / "resources")
            faults: list[tuple[str, str]] = []
            process, disturbed = run.start(), False
            while done < how.tries:
                moment = time.monotonic() + rng.uniform(2, length / 4)
                while process.poll() is None and time.monotonic() < moment:
                    time.sleep(0.02)
                if process.poll() is not None:
                    if (run.folder / TABLE).exists():
                        break
                    assert disturbed, run.said[process.pid].read_text()[-4000:]
                    process, disturbed = run.start(), False
                    continue
                name = turns[done % len(turns)]
                what = known[name](run, process, rng)
                disturbed = True
                if not what:
                    continue
                done += 1
                counts[name]["tries"] += 1
                faults.append((name, what))
                print(f"{done}: {name}: {what}", flush=True)
                if "/" in what:  # the damage must be found before more happens
                    counts[name]["found"] += bool(recover(run, what))
                    heal_undetected(run, what)
            process.wait(timeout=900)
            recover(run, "")
            rows, files = differences(run, reference)
            for name in {name for name, _ in faults}:
                counts[name]["runs"] += 1
                counts[name]["lost rows"] += rows
                counts[name]["files that differ"] += files
            write(how.out, counts)
            assert not rows and not files, f"{faults}: {rows} rows, {files} files differ"
            shutil.rmtree(run.folder)
        if how.slurm or how.only:
            print("without the full disk")
        elif os.geteuid() == 0:
            for number in range(FULL):
                full_disk(Path(scratch) / f"small-{number}", reference, rng)
                counts.setdefault("full disk", Counter()).update(tries=1, runs=1)
                write(how.out, counts)
                print(f"full disk: {number + 1} of {FULL}", flush=True)
        else:
            print("no full disk: that needs root")
    print(how.out.read_text())


if __name__ == "__main__":
    main()
