"""The schedulers we measure ourselves beside: started in a temporary folder, and ended,
by whoever measures.

Both get more GPUs than there are clients, so that nobody waits for what another is
still giving back.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.paths import FAKES

FAKE_NVML = FAKES / "nvml" / "fake_nvml.c"
GPUS = 32
START_SECONDS = 20.0

GFLOW_INSTALL = [sys.executable, "-m", "pip", "install", "runqd"]
SLURM_INSTALL = [
    "apt-get",
    "install",
    "-y",
    "--no-install-recommends",
    "slurm-wlm",
    "munge",
]

SLURM_CONF = """\
ClusterName=bench
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0
ReturnToService=2
InactiveLimit=0
KillWait=2
MinJobAge=60
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={gpus} Boards=1 SocketsPerBoard=1 CoresPerSocket={gpus} ThreadsPerCore=1 \
RealMemory=4000 Gres=gpu:{gpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
"""Its loops run as often as it lets them, which is far more often than by default."""


class MissingError(Exception):
    """A peer cannot run here; the message says what would help."""


@dataclass(frozen=True, kw_only=True)
class Salloc:
    """One request: ``salloc`` runs a command as soon as it holds a GPU, and lets go
    when that ends.
    """

    environment: dict[str, str]

    def request(self) -> float:
        command = ["salloc", "--quiet", "--gres=gpu:1", "echo", "granted"]
        begin = time.perf_counter()
        with subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            elapsed = time.perf_counter() - begin
        if line != b"granted\n":
            raise RuntimeError("salloc was not given a GPU")
        return elapsed * 1000


@dataclass(frozen=True, kw_only=True)
class Gbatch:
    """One request: ``gbatch`` hands in a script, which says on a pipe that it runs with
    its GPU, and ends.
    """

    environment: dict[str, str]
    folder: str

    def request(self) -> float:
        pipe, script = (
            Path(self.folder, f"pipe-{os.getpid()}"),
            Path(self.folder, f"job-{os.getpid()}.sh"),
        )
        if not pipe.exists():
            os.mkfifo(pipe)
            script.write_text(f"#!/bin/sh\necho granted > {pipe}\n")
            script.chmod(0o755)
        command = [
            "gbatch",
            "--config",
            f"{self.folder}/gflow.toml",
            "--gpus",
            "1",
            str(script),
        ]
        begin = time.perf_counter()
        subprocess.run(
            command, env=self.environment, stdout=subprocess.DEVNULL, check=True
        )
        pipe.read_text()
        return (time.perf_counter() - begin) * 1000


@contextmanager
def slurm() -> Iterator[Salloc]:
    """A controller and a node of Slurm.

    Raises:
        MissingError: it is not installed, or may not make device files here.
    """
    if not all(map(shutil.which, ("salloc", "slurmctld", "slurmd", "munged"))):
        raise MissingError(" ".join(SLURM_INSTALL))
    if os.geteuid() != 0:
        raise MissingError(
            "run it as root: Slurm's daemons and the device files it counts need that"
        )
    with TemporaryDirectory(prefix="bench-slurm-") as name, ExitStack() as stack:
        folder, host = Path(name), socket.gethostname().split(".")[0]
        environment = {**os.environ, "SLURM_CONF": f"{folder}/slurm.conf"}
        _write_slurm_files(folder, host)
        munge = [
            f"--{kind}={folder}/munge/{file}" for kind, file in _MUNGE_FILES.items()
        ]
        stack.enter_context(
            _daemon(["munged", "--foreground", *munge], environment, folder)
        )
        _until(lambda: (folder / "munge" / "socket").exists(), "munged")
        stack.enter_context(_daemon(["slurmctld", "-D", "-i"], environment, folder))
        stack.enter_context(_daemon(["slurmd", "-D"], environment, folder))
        _until(
            lambda: _says(["sinfo", "-h", "-o", "%T"], environment) == "idle", "slurm"
        )
        yield Salloc(environment=environment)


_MUNGE_FILES = {
    "key-file": "key",
    "socket": "socket",
    "pid-file": "pid",
    "log-file": "log",
    "seed-file": "seed",
}


def _write_slurm_files(folder: Path, host: str) -> None:
    folder.chmod(0o711)  # munged insists that everybody can reach its socket
    for name in ("state", "spool", "munge", "dev"):
        (folder / name).mkdir()
    (folder / "munge" / "key").write_bytes(os.urandom(1024))
    (folder / "munge" / "key").chmod(0o400)
    for number in range(GPUS):
        os.mknod(folder / "dev" / f"nvidia{number}", 0o20600, os.makedev(195, number))
    ports = {"controller_port": free_port(), "node_port": free_port()}
    (folder / "slurm.conf").write_text(
        SLURM_CONF.format(folder=folder, host=host, gpus=GPUS, **ports)
    )
    devices = f"NodeName={host} Name=gpu File={folder}/dev/nvidia[0-{GPUS - 1}]"
    (folder / "gres.conf").write_text(f"AutoDetect=off\n{devices}\n")


@contextmanager
def gflow() -> Iterator[Gbatch]:
    """gflow's daemon on GPUs of the fake driver, with the faster of its two executors
    (tmux takes a second a job).

    Raises:
        MissingError: it is not installed, or the fake driver cannot be built.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    if not all(shutil.which(name, path=path) for name in ("gflowd", "gbatch", "ginfo")):
        raise MissingError(" ".join(GFLOW_INSTALL))
    if shutil.which("gcc") is None:
        raise MissingError("apt-get install -y gcc libc6-dev")
    with TemporaryDirectory(prefix="bench-gflow-") as name:
        folder = Path(name)
        environment = {**os.environ, "PATH": path, **_gflow_environment(folder)}
        config = f'[daemon]\nhost = "127.0.0.1"\nport = {free_port()}\n[executor]\ntype = "process"\n'
        (folder / "gflow.toml").write_text(config)
        options = ["--config", f"{folder}/gflow.toml"]
        with _daemon(["gflowd", *options], environment, folder):
            _until(lambda: "gpu" in _says(["ginfo", *options], environment), "gflow")
            yield Gbatch(environment=environment, folder=name)


def _gflow_environment(folder: Path) -> dict[str, str]:
    """Variables that keep it in `folder` and show it a driver with GPUs."""
    flags = (
        "-O1",
        "-fvisibility=hidden",
        "-shared",
        "-fPIC",
        "-Wl,-soname,libnvidia-ml.so.1",
        "-lpthread",
    )
    subprocess.run(
        ["gcc", str(FAKE_NVML), "-o", f"{folder}/libnvidia-ml.so.1", *flags], check=True
    )
    (folder / "libnvidia-ml.so").symlink_to("libnvidia-ml.so.1")
    gpus = (
        f"gpu uuid=GPU-{number} name=NVIDIA_H100 memory={80 << 30}"
        for number in range(GPUS)
    )
    (folder / "nvml.state").write_text("\n".join(gpus) + "\n")
    own = dict.fromkeys(
        ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"), f"{folder}/own"
    )
    (folder / "own").mkdir(mode=0o700)
    return {
        **own,
        "FAKE_NVML_STATE": f"{folder}/nvml.state",
        "LD_LIBRARY_PATH": str(folder),
    }


@contextmanager
def _daemon(
    command: Sequence[str], environment: dict[str, str], folder: Path
) -> Iterator[None]:
    """A daemon in the foreground, ended with the block."""
    result = shutil.which(command[0], path=environment["PATH"])
    with (folder / f"{command[0]}.out").open("wb") as log:
        process = subprocess.Popen(
            [result or command[0], *command[1:]],
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()


def _says(command: Sequence[str], environment: dict[str, str]) -> str:
    result = shutil.which(command[0], path=environment["PATH"]) or command[0]
    done = subprocess.run(
        [result, *command[1:]],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()


def _until(is_ready: Callable[[], bool], name: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not is_ready():
        if time.monotonic() > deadline:
            raise MissingError(
                f"{name} is installed, but did not start within {START_SECONDS:g} s"
            )
        time.sleep(0.05)


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
