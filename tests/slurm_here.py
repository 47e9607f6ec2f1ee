"""A SLURM of this machine alone for as long as a block lasts: munged, slurmctld, slurmd, in a folder of their own.

The packages are Debian's `slurmctld`, `slurmd`, `slurm-client` and `munge`; the user has to be root, as slurmd asks.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "squeue")
_CONFIGURATION = """
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2
ReturnToService=2
KillWait=10
MinJobAge=3600
MpiDefault=none
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=60 State=UP
"""


def missing() -> str:
    """What stands in the way of a SLURM here, in words; empty where nothing does."""
    lacking = [name for name in NEEDED if shutil.which(name, path=_PATH) is None]
    if lacking:
        return f"needs Debian's slurmctld, slurmd, slurm-client and munge: there is no {lacking[0]}"
    return "" if os.geteuid() == 0 else "slurmd has to be started by root"


_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def answer(environment: dict[str, str], *command: str) -> str:
    """What a command of SLURM prints.

    Raises:
        CalledProcessError: it failed.
    """
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=600).stdout


@contextlib.contextmanager
def slurm(nodes: int = 1) -> Iterator[dict[str, str]]:
    """Within the block a SLURM of so many nodes of one CPU each runs here; gives the environment of its commands.

    Nothing of the machine's own SLURM is read or changed. The folder has a short path, as sockets ask.
    """
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    controller, *ports = _free_ports(nodes + 1)
    lines = [
        f"NodeName=n{k} NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 Port={port} CPUs=1 RealMemory=4000"
        for k, port in enumerate(ports)
    ]
    fields = {"folder": folder, "host": socket.gethostname(), "controller": controller, "nodes": "\n".join(lines)}
    (folder / "slurm.conf").write_text(_CONFIGURATION.format(**fields))
    (folder / "state").mkdir()
    (folder / "key").write_bytes(os.urandom(128))
    (folder / "key").chmod(0o600)
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
    environment |= {"PATH": f"{_srun(folder)}{os.pathsep}{_PATH}"}
    munge = [f"--{name}-file={folder}/{name}" for name in ("key", "pid", "log", "seed")]
    daemons = [["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *munge], ["slurmctld", "-D"]]
    daemons += [["slurmd", "-D", "-N", f"n{k}"] for k in range(nodes)]
    running: list[subprocess.Popen] = []
    try:
        for command in daemons:
            running.append(
                subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
            _wait(environment, "munge", "-n", f"--socket={folder}/munge.socket")
        _wait(environment, "sh", "-c", f"test $(sinfo -h -N -t idle -o %n | wc -l) -eq {nodes}")
        yield environment
    finally:
        for process in reversed(running):
            process.terminate()
        for process in running:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _srun(folder: Path) -> Path:
    """A folder with an `srun` that finds this SLURM: Snakemake takes variables of SLURM from a job's environment."""
    script = folder / "bin" / "srun"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun", path=_PATH)} "$@"\n')
    script.chmod(0o755)
    return script.parent


def _wait(environment: dict[str, str], *command: str) -> None:
    """Until a command ends well, some seconds at most.

    Raises:
        CalledProcessError: it does not.
    """
    for _ in range(100):
        done = subprocess.run(command, env=environment, capture_output=True, timeout=60)
        if done.returncode == 0:
            return
        time.sleep(0.1)
    raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
