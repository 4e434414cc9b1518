"""A stand-in for ``nvidia-cuda-mps-control`` that speaks both of its text protocols,
with failures to order.

It is the control program and the daemon, as the real one is; its server is a child
process, which outlives a daemon that is killed. Protocol 2 answers as the real program
(555.58.02) does: a refusal ends with status 0, and each question is written to
control.log. ``tests/providers/nvidia/mps/test_program_contract.py`` holds it against
that. What the "driver" has is read anew for every question from the JSON file that
``STUB_MPS`` names:

``gpus``: {uuid: {"multiprocessors", "mib"}}, the GPUs that are there
``protocols``: the highest protocol it knows (3)
``clients``: [[pid, namespace]], who is connected besides the clients of
``tests/fakes/cuda/fake_cuda.c``
``fault``: true has the server in FAULT for as long as somebody is connected
``hang``: true has the daemon take questions and give no answer
``refuse_start``: a text has the daemon not start, for that reason
``server_fails``: a list of texts has each server end with status 1 as it starts, and
write these lines to server.log (mostly none)
``server_fails_in``: the protocol in which each server ends so
``ignore_limits``: true has limits be taken, and not kept; "memory" those of memory
``polite``: true has refusals of protocol 3 end with status 0, and only say so
``kill_server``: the process id of a daemon whose server is to die
``lists_gone``: a process id that protocol 2 lists as a server, which ends before
anything else is asked of it
``server_outlives``: true has the server go on when its daemon quits
``sm_unit``: multiprocessors are granted in such units (2)
``speaks``: the protocol a daemon speaks whatever it is started with (a foreign one that
is there already)

`client_view` is what CUDA makes of all this: where no daemon listens, a process
silently has the whole GPU.
"""

from __future__ import annotations

import os
import sys
from _socket import AF_UNIX, SOCK_STREAM
from _socket import (
    socket as bare_socket,
)  # the rest is imported by those who need it: this program is run very often

USAGE_2 = "usage: nvidia-cuda-mps-control [-d | -f | -v]\n"
USAGE_3 = "usage: nvidia-cuda-mps-control <module> <verb>\nmodules: server namespace client device\n"
LIFE_SECONDS = 120


def told():
    import json

    with open(os.environ["STUB_MPS"]) as file:
        return json.load(file)


def main(words):
    if not {"-v", "-h", "-d"} & {*words}:
        given = [word for word in words if word not in ("-p", "3")]
        lines = [given] if given else [line.split() for line in sys.stdin]
        return max(ask(os.environ["CUDA_MPS_PIPE_DIRECTORY"], line) for line in lines)
    script = told()
    knows_3 = script.get("protocols", 3) >= 3
    if words == ["-v"]:
        print(
            "CUDA MPS Control binary version: 13040"
            if knows_3
            else "CUDA MPS Control binary version: 13000"
        )
        return 0
    if "-h" in words:
        print(USAGE_3 if knows_3 and "-p" in words else USAGE_2)
        return 0 if knows_3 or "-p" not in words else 1
    if "-p" in words and not knows_3:
        print(f"unrecognized option '-p'\n{USAGE_2}")
        return 1
    return start(script, words, knows_3)


def start(script, words, knows_3):
    import time

    if script.get("refuse_start"):
        print(script["refuse_start"])
        return 1
    pipes = os.environ["CUDA_MPS_PIPE_DIRECTORY"]
    if os.path.exists(f"{pipes}/control"):
        print("An instance of this daemon is already running")
        return 1
    wanted = os.environ.get("CUDA_MPS_PROTOCOL_VERSION") or (
        "3" if "3" in words else "2"
    )
    protocol = script.get("speaks") or (int(wanted) if knows_3 else 2)
    if os.fork() == 0:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        if os.fork() == 0:
            Daemon(pipes, protocol).serve()
        os._exit(0)
    for _ in range(200):
        if os.path.exists(f"{pipes}/nvidia-cuda-mps-control.pid"):
            return 0
        time.sleep(0.01)
    return 1


def ask(pipes, words, say=sys.stdout.write):
    line = bare_socket(AF_UNIX, SOCK_STREAM)
    try:
        line.connect(f"{pipes}/control")
        line.send("\x1f".join(words).encode() + b"\n")
        answer = b"".join(iter(lambda: line.recv(65536), b"")).decode()
    except OSError:
        answer = ""
    finally:
        line.close()
    if not answer:
        say("Cannot find MPS control daemon process\n")
        return 1
    say(answer[1:])
    return int(answer[0])


class Daemon:
    def __init__(self, pipes, protocol):
        self.pipes, self.protocol, self.gpu = (
            pipes,
            protocol,
            os.environ["CUDA_VISIBLE_DEVICES"],
        )
        self.logs = os.environ["CUDA_MPS_LOG_DIRECTORY"]
        self.percent, self.limits, self.server, self.looks = 100.0, {}, None, 0
        self.server_percent, self.server_limits = 100.0, {}
        self.namespaces, self.terminated = {}, []

    def log(self, text):
        with open(f"{self.logs}/control.log", "a") as file:
            file.write(f"[2026-04-28 18:20:41.704 Control {os.getpid()}] {text}\n")

    def serve(self):
        import contextlib
        import signal
        import socket

        signal.alarm(LIFE_SECONDS)  # nobody's orphan
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"{self.pipes}/control")
        listener.listen()
        self.log(f"Starting control daemon using socket {self.pipes}/control")
        with open(f"{self.pipes}/pid.new", "w") as file:
            file.write(str(os.getpid()))
        os.rename(f"{self.pipes}/pid.new", f"{self.pipes}/nvidia-cuda-mps-control.pid")
        waiting = []  # those who get no answer
        while True:
            line, _ = listener.accept()
            with line, contextlib.suppress(OSError, ValueError):
                words = line.makefile().readline().rstrip("\n").split("\x1f")
                if told().get("hang"):
                    waiting.append(line.dup())
                    continue
                code, text = self.answer(words)
                if words == ["quit"] and self.clients():
                    waiting.append(line.dup())  # it waits until they have gone
                    continue
                line.sendall(f"{code}{text}".encode())
            if words[0] in ("quit", "-q"):
                if not self.script.get("server_outlives"):
                    self.end_server()
                os.unlink(f"{self.pipes}/nvidia-cuda-mps-control.pid")
                os._exit(0)

    def answer(self, words):
        import json

        self.script = told()
        if words == ["dump"]:
            return 0, json.dumps(vars(self), default=str)
        if words[:1] == ["connect"]:
            return 0, json.dumps(self.connect(*words[1:]))
        for text in ("Accepting connection...", "NEW UI", f"Cmd:{' '.join(words)}"):
            self.log(text)
        code, text = self.answer_in_protocol(words)
        for line in text.splitlines():
            self.log(line)
        self.log("UI closed")
        return code, text

    def answer_in_protocol(self, words):
        if self.protocol == 2:
            try:
                return 0, self.answer_2(*words)
            except (AttributeError, TypeError):
                return 0, f'Unknown command "{words[0]}"\n'
        try:
            return 0, self.answer_3(*words)
        except (KeyError, AttributeError, TypeError, ValueError) as error:
            return int(
                not self.script.get("polite")
            ), f"Unknown command {' '.join(words)} ({error})\n"

    # -- the server --------------------------------------------------------------------

    def start_server(self):
        import time

        lines = self.script.get("server_fails")
        if self.script.get("server_fails_in") == self.protocol:
            lines = []
        if lines is None and self.gpu not in self.script["gpus"]:
            lines = ["no CUDA-capable device is detected"]
        pid = os.fork()
        if pid == 0:
            serve_clients(fails=lines is not None)
        remember(pid)
        self.log(f"Starting new server {pid} for user {os.getuid()}")
        with open(f"{self.logs}/server.log", "a") as file:
            for text in ["Server has started"] if lines is None else lines:
                file.write(f"[2026-04-28 18:20:41.704 Server {pid}] {text}\n")
        if lines is None:
            self.server, self.looks = pid, 0
            self.server_percent, self.server_limits = self.percent, {**self.limits}
            self.log(f"NEW SERVER {pid}: Ready")
            return
        while not self.is_over(pid):
            time.sleep(0.002)
        self.log(f"Server {pid} exited with status 1")
        self.log("Removed Shm file at ")

    def end_server(self):
        import signal

        if self.server is not None:
            os.kill(self.server, signal.SIGKILL)
            os.waitpid(self.server, 0)
            self.server = None

    def is_over(self, pid):
        return os.waitpid(pid, os.WNOHANG)[0] == pid

    def status(self):
        """None when the server has gone."""
        if self.script.get("kill_server") == os.getpid():
            self.end_server()
        if self.server is not None and self.is_over(self.server):
            self.server = None
        if self.server is None:
            return None
        self.looks += 1
        if self.script.get("fault") and self.script.get("clients"):
            return "Fault" if self.protocol == 3 else "FAULT"
        if self.looks < 2:
            return "Initializing" if self.protocol == 3 else "INITIALIZING"
        return "Ready" if self.protocol == 3 else "ACTIVE"

    def clients(self):
        return (
            []
            if self.server is None
            else [*self.script.get("clients", []), *self.present()]
        )

    def present(self):
        """Those who left a file named by their process id where they connected, and
        still run.
        """
        folders = [(folder, names) for folder, _, names in os.walk(self.pipes)]
        left = [
            (name, os.path.basename(folder))
            for folder, names in folders
            for name in names
            if name.isdigit()
        ]
        return [
            [int(pid), namespace]
            for pid, namespace in left
            if os.path.exists(f"/proc/{pid}")
        ]

    # -- protocol 2 --------------------------------------------------------------------

    def answer_2(self, verb, *given):
        return getattr(self, f"do_{verb}")(*given)

    def refusal(self, pid):
        """What is answered where a server is named that is not there."""
        self.status()
        is_there = pid.isdigit() and int(pid) == self.server
        return "" if is_there else f"Server {pid} not found\n"

    def do_get_default_active_thread_percentage(self):
        return f"{self.percent}\n"

    def do_get_server_list(self):
        servers = [self.server] if self.status() else []
        if gone := self.script.get("lists_gone"):
            servers.append(gone)
        return "".join(f"{pid}\n" for pid in servers)

    def do_get_server_status(self, pid):
        return self.refusal(pid) or f"{self.status()}\n"

    def do_get_client_list(self, pid):
        listed = "".join(f"{client}\n" for client, _ in self.clients())
        return self.refusal(pid) or listed

    def do_start_server(self, flag, uid):
        assert flag == "-uid"
        self.start_server()
        return ""

    def do_set_default_active_thread_percentage(self, percent):
        if not 0 < float(percent) <= 100:
            self.log("Invalid percentage, expected between (0.0, 100.0]")
        elif self.script.get("ignore_limits") is not True:
            self.percent = float(percent)
        return f"{self.percent}\n"

    def do_set_active_thread_percentage(self, pid, percent):
        if refusal := self.refusal(pid):
            return refusal
        self.server_percent = float(percent)
        return f"{self.server_percent}\n"

    def do_set_default_device_pinned_mem_limit(self, device, limit):
        if not self.script.get("ignore_limits"):
            # Without a word also for rubbish, and for a name: it is no number, and
            # takes the limit of device 0 away.
            self.limits[ordinal(device)] = mib(limit) if device.isdigit() else None
        return ""

    def do_get_default_device_pinned_mem_limit(self, device):
        return shown(self.limits.get(ordinal(device)))

    def do_set_device_pinned_mem_limit(self, pid, device, limit):
        if refusal := self.refusal(pid):
            return refusal
        self.server_limits[ordinal(device)] = mib(limit)
        return ""

    def do_terminate_client(self, server, client):
        if refusal := self.refusal(server):
            return f"{refusal}{refusal.rstrip()}!\n1\n"
        self.terminated.append(int(client))
        return ""

    def do_quit(self, flag="", seconds=""):
        return ""

    # -- protocol 3 --------------------------------------------------------------------

    def answer_3(self, module, verb="", *given):
        names = [word for word in given if not word.startswith("--")]
        flags = dict(
            word[2:].partition("=")[::2] for word in given if word.startswith("--")
        )
        return getattr(self, "v3_" + f"{module}_{verb}".strip("-_").replace("-", ""))(
            *names, **{key.replace("-", "_"): value for key, value in flags.items()}
        )

    def v3_q(self):
        return ""

    def v3_server_create(self, name, allowed_devices):
        check_name(name)
        self.gpu, self.name = allowed_devices, name
        self.start_server()
        os.makedirs(f"{self.pipes}/{name}/default")
        self.namespaces["default"] = {"pinned": None, "percent": None}
        return ""

    def v3_server_list(self, **how):
        status = self.status()
        return (
            f"{self.name},0,{self.server},{status},{self.pipes}/{self.name},{self.gpu},-\n"
            if status
            else ""
        )

    def v3_server_set(self, name, active_thread_percentage, pinned_memory_limit):
        return self.v3_namespace_set(
            "default", name, active_thread_percentage, pinned_memory_limit
        )

    def v3_namespace_create(self, name, server):
        check_name(name)
        os.makedirs(f"{self.pipes}/{server}/{name}")
        open(f"{self.pipes}/{server}/{name}/control", "w").close()
        self.namespaces[name] = {"pinned": None, "percent": None}
        return ""

    def v3_namespace_set(
        self, name, server, active_thread_percentage, pinned_memory_limit
    ):
        if not self.script.get("ignore_limits"):
            self.namespaces[name] = {
                "pinned": pinned_memory_limit,
                "percent": float(active_thread_percentage),
            }
        return ""

    def v3_namespace_list(self, server, **how):
        rows = [
            f"{name},{server},{self.status()},{limit['pinned'] or '-'},{limit['percent'] or 100.0:.2f},0,"
            f"{self.pipes}/{server}/{name}\n"
            for name, limit in self.namespaces.items()
        ]
        return "".join(rows)

    def v3_namespace_get(self, name, server, field):
        assert field == "pipe-directory"
        return f"{self.pipes}/{server}/{name}\n"

    def v3_namespace_delete(self, name, server, force=None):
        if force is None and any(namespace == name for _, namespace in self.clients()):
            raise ValueError("active clients remain")
        del self.namespaces[name]
        for left in os.listdir(f"{self.pipes}/{server}/{name}"):
            os.unlink(f"{self.pipes}/{server}/{name}/{left}")
        os.rmdir(f"{self.pipes}/{server}/{name}")
        return ""

    def v3_client_list(self, server, **how):
        return "".join(
            f"{pid},{server},0,{namespace},python train.py\n"
            for pid, namespace in self.clients()
        )

    def v3_client_terminate(self, pid):
        self.terminated.append(int(pid))
        return ""

    # -- a client ----------------------------------------------------------------------

    def connect(self, namespace, percent, limits, visible):
        """What a process gets here: (multiprocessors, MiB)."""
        gpu = self.script["gpus"][self.gpu]
        own = self.namespaces.get(namespace or "default")
        most = own["percent"] if self.protocol == 3 else self.server_percent
        limit = (
            mib(own["pinned"]) if self.protocol == 3 else self.server_limits.get("0")
        )
        if self.protocol == 2 and percent:
            most = min(most, float(percent))
        unit = self.script.get("sm_unit", 2)
        units = gpu["multiprocessors"] * (most or 100) / 100 / unit
        rounded = int(units if self.protocol == 3 else -(-units // 1))
        share = min(gpu["multiprocessors"], unit * rounded)
        entries = dict(entry.split("=") for entry in limits.split(",") if entry)
        known = {visible, "0"} if self.protocol == 3 else {"0"}
        if not set(entries) <= known:
            return share, gpu["mib"]  # an entry it does not know, and no limit holds
        sizes = [limit, *map(mib, entries.values())]
        return share, min([size for size in sizes if size], default=gpu["mib"])


def check_name(name):
    if not name.replace("_", "").isalnum() or name != name.lower() or len(name) > 64:
        raise ValueError("lowercase letters, digits and underscores")


def serve_clients(fails):
    """The server's process: it is there until a signal ends it."""
    if fails:
        os._exit(1)
    os.execv("/bin/sleep", ["nvidia-cuda-mps-server", str(LIFE_SECONDS)])


def remember(pid):
    """Tell tests which servers were started."""
    with open(
        os.path.join(os.path.dirname(os.environ["STUB_MPS"]), "servers"), "a"
    ) as file:
        file.write(f"{pid}\n")


def ordinal(device):
    """The number at the beginning of a text, as C reads it: 0 where there is none."""
    return device if device.isdigit() else "0"


def mib(text):
    """MiB of a limit; None for no limit."""
    units = {"M": 1, "G": 1024}
    is_limit = text is not None and text[:-1].isdigit() and text[-1:] in units
    return int(text[:-1]) * units[text[-1]] or None if is_limit else None


def shown(limit):
    """A limit as the daemon tells it: rounded down to the largest unit."""
    if limit is None:
        return ""
    return f"{limit // 1024}G\n" if limit >= 1024 else f"{limit}M\n"


def client_view(environment, script):
    """What a CUDA process with `environment` gets: {"mps", "multiprocessors",
    "mib"}.
    """
    visible = environment["CUDA_VISIBLE_DEVICES"]
    whole = script["gpus"][visible]
    directory = environment.get("CUDA_MPS_PIPE_DIRECTORY", "/nowhere")
    if not os.path.exists(f"{directory}/control"):
        return {"mps": False, **whole}
    daemon, namespace = directory, ""
    if not os.path.exists(f"{directory}/nvidia-cuda-mps-control.pid"):
        daemon, namespace = (
            os.path.dirname(os.path.dirname(directory)),
            os.path.basename(directory),
        )
    names = ("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT")
    messages = []
    ask(
        daemon,
        ["connect", namespace, *(environment.get(name, "") for name in names), visible],
        messages.append,
    )
    share, size = messages[0].strip("[]").split(",")
    return {"mps": True, "multiprocessors": int(share), "mib": int(size)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
