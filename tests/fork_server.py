"""A server that has imported what `quark` imports, and runs each command in a fork of itself.

Imports are most of a tiny job's time: some four seconds of the processor for torch and transformers
alone. The client is a `quark` that stands beside a Python, as jobs look for it. It hands its words,
directory, environment and open files to the server, waits, and ends with the command's exit status.
If it is killed, so is the command.
"""

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from importlib import import_module
from pathlib import Path

CLIENT = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    asked = json.dumps([sys.argv, os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(asked).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(asked)
    answer = server.recv(1)
sys.exit(answer[0] if answer else "quark: the server ended")
"""
IMPORTED = (
    *("quark.cli", "quark.models.lm", "quark.generation.sampler", "quark.training.trainer"),
    "quark.reporting.tracking",
    *("mlflow", "accelerate", "sklearn.svm", "matplotlib.pyplot", "transformers.pipelines"),
    *("transformers.models.gpt2.modeling_gpt2", "transformers.models.auto.modeling_auto"),
)


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Start a server; its client is `folder/bin/quark`, beside a Python with our packages."""
    here = Path(sys.prefix)
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/python").symlink_to(sys.executable)
    if (here / "pyvenv.cfg").exists():  # a Python finds its packages beside this file
        (folder / "pyvenv.cfg").symlink_to(here / "pyvenv.cfg")
        (folder / "lib").symlink_to(here / "lib")
    address = str(folder / "socket")
    client = folder / "bin/quark"
    client.write_text(CLIENT.format(python=sys.executable, address=address))
    client.chmod(0o755)
    environment = {**os.environ, "GOMP_SPINCOUNT": "1000"}  # read at import; as common.smk sets it
    command = [sys.executable, __file__, address]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    assert server.stdout and server.stdout.read(1), "the server did not start"
    return server


def serve(address: str) -> None:
    """Fork for each client, for ever."""
    for name in IMPORTED:
        import_module(name)
    assert threading.active_count() == 1, "a fork has the calling thread alone"
    gc.freeze()  # what is imported stays: forks need not look for garbage in it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(64)
        os.write(1, b"1")
        while True:
            client, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                attend(client)
            client.close()


def attend(client: socket.socket) -> None:
    """Run a client's command in a further fork, and tell its status; does not return."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    length, files, _, _ = socket.recv_fds(client, 8, 3)
    words, directory, environment = json.loads(read(client, int.from_bytes(length, "big")))
    command = os.fork()
    if command == 0:
        os.setpgid(0, 0)
        client.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
        os.chdir(directory)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = words
        from quark.cli import main

        main()
        sys.exit()
    threading.Thread(target=kill_with, args=(client, command), daemon=True).start()
    _, status = os.waitpid(command, 0)
    client.sendall(bytes([abs(os.waitstatus_to_exitcode(status))]))
    os._exit(0)


def read(client: socket.socket, length: int) -> bytes:
    """So many bytes."""
    found = b""
    while len(found) < length:
        found += client.recv(length - len(found))
    return found


def kill_with(client: socket.socket, command: int) -> None:
    """Kill a command and what it started when its client is gone."""
    client.recv(1)
    with suppress(ProcessLookupError):
        os.killpg(command, signal.SIGKILL)


if __name__ == "__main__":
    serve(sys.argv[1])
