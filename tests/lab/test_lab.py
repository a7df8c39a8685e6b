"""The lab itself: hosts are real and apart from each other, faults are what they say, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from lab import bridge
from lab.errors import LabError
from lab.host import Host
from lab.network import Lab
from lab.process_table import Listener
from lab.proxy import Proxy
from lab.waiting import until, until_gone

KINDS = ("pid", "net", "mnt", "uts", "ipc")  # of namespaces
HERE = Path(__file__).parent
SO_RCVBUFFORCE = 33  # of Linux; not in the module socket
QUICK = {"connect_timeout": 10, "login_timeout": 10}


@pytest.fixture(scope="module")
def three(lab: Lab) -> list[Host]:
    """Three plain hosts."""
    return [lab.host(name) for name in ("alpha", "beta", "gamma")]


@pytest.fixture
def alpha(lab: Lab, three: list[Host]) -> Iterator[Host]:
    """The first of them; whatever a test does to it is undone."""
    yield three[0]
    lab.heal()


def ssh(host: Host, *command: str, check: bool = True, **options: Any) -> str:
    """A command over OpenSSH's client."""
    done = subprocess.run(host.login.ssh(*command), capture_output=True, text=True, timeout=30, **options)
    assert not check or done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout if check else f"{done.returncode} {done.stdout}{done.stderr}"


def with_connection(host: Host, work: Callable[[asyncssh.SSHClientConnection], Coroutine[Any, Any, Any]]) -> Any:
    """Do something over a connection of asyncssh."""

    async def run() -> Any:
        async with asyncio.timeout(30), asyncssh.connect(**host.login.asyncssh(), **QUICK) as connection:
            return await work(connection)

    return asyncio.run(run())


def reachable(host: Host, patience: float = 0.3) -> bool:
    """Whether the server says its first words within the patience; nothing is sent."""

    try:
        with socket.create_connection((host.address, host.traits.port), timeout=patience) as connection:
            return connection.recv(7) == b"SSH-2.0"
    except OSError:
        return False


# -- hosts ------------------------------------------------------------------------------------------------------------
def test_both_clients_get_in(three: list[Host]) -> None:
    for host in three:
        assert ssh(host, "hostname").strip() == host.name
        said = with_connection(host, lambda connection: connection.run("whoami; pwd", check=True)).stdout
        assert said.split() == ["ada", "/home/ada"]


def test_names_are_known_in_the_hosts_and_to_a_client(lab: Lab, three: list[Host], tmp_path: Path) -> None:
    assert three[0].run("getent", "hosts", "gamma").split() == [three[2].address, "gamma"]
    config = lab.ssh_config(tmp_path)
    done = subprocess.run(["ssh", "-F", str(config), "beta", "hostname"], capture_output=True, timeout=30, check=True)
    assert done.stdout == b"beta\n"
    assert len(lab.known_hosts().splitlines()) == len(lab.hosts)


def test_python_runs_the_project_there(alpha: Host) -> None:
    said = ssh(alpha, "python -c 'import sys, tune.trial_sdk, asyncssh; print(sys.executable)'")
    assert said.strip() == sys.executable


def test_files_are_private(three: list[Host], tmp_path: Path) -> None:
    alpha, beta, _ = three
    for place in ("/home/ada", "/tmp", "/var/tmp", "/dev/shm"):
        alpha.write(f"{place}/mark", "mine\n")
        assert alpha.read(f"{place}/mark") == b"mine\n"
        assert not beta.exists(f"{place}/mark")
        assert not Path(place, "mark").exists()
    assert ssh(alpha, "cat mark") == "mine\n"
    (tmp_path / "here").write_text("")
    assert not alpha.exists(str(tmp_path / "here"))
    with pytest.raises(FileNotFoundError, match="beta:mark"):
        beta.read("mark")


def test_what_is_shared_is_read_only(alpha: Host) -> None:
    for path in (HERE / "mark", Path(sys.base_prefix) / "mark", Path("/etc/mark"), Path("/mark")):
        with pytest.raises(LabError, match="Read-only file system"):
            alpha.run("touch", str(path), root=True)


def test_processes_are_private(three: list[Host]) -> None:
    alpha, beta, _ = three
    with alpha.spawn("sleep", "1001"):
        until(lambda: any(process.argv == ("sleep", "1001") for process in alpha.processes()), "the sleeper")
        (found,) = [process for process in alpha.processes() if process.argv == ("sleep", "1001")]
        assert found.uid == 1000
        assert Path(f"/proc/{found.outer}/cmdline").read_bytes() == b"\0".join((b"sleep", b"1001", b""))
        assert f"/proc/{found.pid}/cmdline" in alpha.run("sh", "-c", "grep -l 1001 /proc/[0-9]*/cmdline || true")
        assert all("1001" not in process.argv for process in beta.processes())
        assert "1001" not in beta.run("ps", "-eo", "args")
    until(lambda: all("1001" not in process.argv for process in alpha.processes()), "the sleeper's end")


def test_orphans_leave_no_zombies(alpha: Host) -> None:
    alpha.run("sh", "-c", "for n in 1 2 3; do (sleep 0.01 &) ; done")
    until(lambda: "sleep" not in alpha.run("ps", "-eo", "args,stat"), "the orphans to be buried")


def test_listening_sockets_are_seen(alpha: Host) -> None:
    assert alpha.listening() == [Listener("tcp", alpha.address, 22)]
    program = """
        import socket, time
        held = [socket.create_server(("127.0.0.1", 5001)), socket.create_server(("::1", 5002), family=socket.AF_INET6)]
        held += [socket.socket(type=socket.SOCK_DGRAM), socket.socket(socket.AF_UNIX)]
        held[2].bind(("0.0.0.0", 5003)); held[3].bind("/tmp/held.sock"); held[3].listen()
        time.sleep(60)
    """
    with alpha.spawn("python", "-c", textwrap.dedent(program)):
        wanted = {
            Listener("tcp", alpha.address, 22),
            Listener("tcp", "127.0.0.1", 5001),
            Listener("tcp", "::1", 5002),
            Listener("udp", "0.0.0.0", 5003),
            Listener("unix", "/tmp/held.sock"),
        }
        until(lambda: set(alpha.listening()) == wanted, "five sockets")


def test_a_failing_command_says_so(alpha: Host) -> None:
    with pytest.raises(LabError, match=r"ls /nowhere on alpha ended with 2:\n\n.*No such file"):
        alpha.run("ls", "/nowhere")
    with pytest.raises(LabError, match=r"sleep 1002 on alpha takes more than 0\.1 s"):
        alpha.run("sleep", "1002", timeout=0.1)
    until(lambda: all("1002" not in process.argv for process in alpha.processes()), "the sleeper's end")


# -- what hosts can be like -------------------------------------------------------------------------------------------
def test_odd_hosts(lab: Lab) -> None:
    odd = lab.host(
        "odd",
        user="root",
        bashrc="echo Welcome; echo to odd >&2\n",
        python=None,
        programs={"nvidia-smi": "#!/bin/sh\necho no devices\n"},
        environment={"COLOUR": "dark blue"},
        port=2222,
    )
    assert odd.known_hosts.startswith(f"[{odd.address}]:2222 ssh-ed25519 ")
    assert ssh(odd, "id -u; pwd; nvidia-smi; echo $COLOUR") == "Welcome\n0\n/root\nno devices\ndark blue\n"
    assert "python3: not found" in ssh(odd, "python3 -V", check=False)
    lab.remove(odd)
    assert "odd" not in lab.hosts
    assert not reachable(odd)


def test_a_host_can_have_another_python(lab: Lab) -> None:
    bare = lab.host("bare", python=f"{sys.base_prefix}/bin/python3")
    said = ssh(bare, "python3 -c 'import sys; print(sys.prefix)'; python3 -c 'import tune'; echo $?")
    assert said.split() == [sys.base_prefix, "1"]
    lab.remove(bare)


def test_forwarding_and_terminals_can_be_forbidden(alpha: Host) -> None:
    async def dial(connection: asyncssh.SSHClientConnection) -> str:
        said = []
        for path in ("tcp", "unix"):
            try:
                if path == "tcp":
                    _, writer = await connection.open_connection(alpha.address, 22)
                else:
                    _, writer = await connection.open_unix_connection("/tmp/talk.sock")
                writer.close()
                said.append("open")
            except asyncssh.ChannelOpenError as error:
                said.append(str(error))
        return ", ".join(said)

    program = "import socket; s = socket.socket(1); s.bind('/tmp/talk.sock'); s.listen(); input()"
    with alpha.spawn("python", "-c", program, stdin=subprocess.PIPE):
        until(lambda: Listener("unix", "/tmp/talk.sock") in alpha.listening(), "the socket")
        assert with_connection(alpha, dial) == "open, open"
        alpha.restart_sshd(tcp_forwarding=False, socket_forwarding=False, terminal=False)
        assert with_connection(alpha, dial) == "open failed, open failed"
    assert "PTY allocation request failed" in ssh(alpha, "-tt", "true", check=False)


def test_a_forced_command_is_forced(alpha: Host) -> None:
    alpha.restart_sshd(force_command="echo forced $SSH_ORIGINAL_COMMAND")
    assert ssh(alpha, "rm -rf /") == "forced rm -rf /\n"


def test_lines_of_a_config_that_sshd_refuses_are_reported(alpha: Host) -> None:
    with pytest.raises(LabError, match=r"does not start: .*Bad configuration option: Nonsense"):
        alpha.restart_sshd(sshd_lines=("Nonsense yes",))


# -- the server -------------------------------------------------------------------------------------------------------
def test_a_stopped_server_leaves_its_sessions(alpha: Host) -> None:
    async def use(connection: asyncssh.SSHClientConnection) -> str:
        alpha.stop_sshd()
        assert not reachable(alpha)
        return str((await connection.run("echo still here", check=True)).stdout)

    assert with_connection(alpha, use) == "still here\n"
    alpha.start_sshd()
    assert reachable(alpha, 5)


def test_killed_sessions_leave_server_and_commands(alpha: Host) -> None:
    async def work(connection: asyncssh.SSHClientConnection) -> None:
        await connection.create_process("exec sleep 1003", stdin=asyncssh.DEVNULL)
        until(lambda: any("1003" in process.argv for process in alpha.processes()), "the command")
        assert alpha.kill_sessions() >= 2  # the one with privileges and the one without
        with pytest.raises((asyncssh.Error, OSError)):
            await connection.run("true", check=True)

    with_connection(alpha, work)
    assert any("1003" in process.argv for process in alpha.processes())
    alpha.run("pkill", "sleep")
    assert reachable(alpha, 5)


def test_a_changed_host_key_is_noticed(alpha: Host) -> None:
    before = alpha.login
    assert alpha.change_host_key() != before.known_hosts
    done = subprocess.run(before.ssh("true"), capture_output=True, text=True, timeout=30)
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in done.stderr

    async def connect() -> None:
        await asyncssh.connect(**before.asyncssh(), **QUICK)

    with pytest.raises(asyncssh.HostKeyNotVerifiable):
        asyncio.run(connect())
    assert ssh(alpha, "hostname") == "alpha\n"


# -- the link ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("fault", ["cut", "drop"])
def test_a_cut_link_is_silent_and_heals(alpha: Host, fault: str) -> None:
    async def work(connection: asyncssh.SSHClientConnection) -> str:
        getattr(alpha, fault)()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connection.run("echo lost"), 0.5)
        assert not await asyncio.to_thread(reachable, alpha)
        alpha.restore()
        return str((await connection.run("echo back", check=True)).stdout)

    assert with_connection(alpha, work) == "back\n"


def test_one_way_can_be_dropped(alpha: Host, three: list[Host]) -> None:
    alpha.drop(incoming=False)
    assert not reachable(alpha)
    assert reachable(three[1], 5)


def test_a_rejecting_host_resets(alpha: Host) -> None:
    async def work(connection: asyncssh.SSHClientConnection) -> None:
        alpha.reject()
        with pytest.raises((asyncssh.Error, OSError)):
            await asyncio.wait_for(connection.run("true", check=True), 10)

    with_connection(alpha, work)


def test_a_lossy_link_loses_about_that_much(alpha: Host) -> None:
    count = 1000
    alpha.lossy(0.4)
    receive = f"""
        import socket
        s = socket.socket(type=socket.SOCK_DGRAM)
        s.setsockopt(socket.SOL_SOCKET, {SO_RCVBUFFORCE}, 8 << 20)  # room for all of them, lest the kernel drop some
        s.bind(("{alpha.address}", 5004))
        print("ready", flush=True)
        got = 0
        while s.recv(100) != b"end": got += 1
        print(got)
    """
    with alpha.spawn("python", "-c", textwrap.dedent(receive), root=True, stdout=subprocess.PIPE) as receiver:
        assert receiver.stdout is not None
        assert receiver.stdout.readline() == b"ready\n"
        script = f"import socket; s = socket.socket(type=socket.SOCK_DGRAM); t = ({alpha.address!r}, 5004)\n"
        script += f"for n in range({count}): s.sendto(b'x', t)\n"
        subprocess.run([sys.executable, "-c", script], check=True, timeout=30)
        alpha.restore()
        subprocess.run([sys.executable, "-c", script.splitlines()[0] + "; s.sendto(b'end', t)"], check=True, timeout=30)
        got = int(receiver.stdout.readline())
    assert 500 <= got <= 700  # 600 expected, 15 the standard deviation


@pytest.mark.parametrize("reset", [False, True])
def test_a_link_can_be_cut_in_an_upload(alpha: Host, reset: bool) -> None:
    alpha.cut_after(1 << 20, reset=reset)

    async def upload(connection: asyncssh.SSHClientConnection) -> None:
        process = await connection.create_process("cat > upload", encoding=None)
        process.stdin.write(b"x" * (4 << 20))
        process.stdin.write_eof()
        done = await process.wait(check=True)
        if done.exit_status is None:  # asyncssh's word for a command whose connection was lost
            raise ConnectionResetError

    async def run() -> str:
        connection = await asyncssh.connect(**alpha.login.asyncssh(), **QUICK)
        try:
            await asyncio.wait_for(upload(connection), 20 if reset else 1)
            return "done"
        except TimeoutError:
            return "silence"
        except (asyncssh.Error, OSError):
            return "reset"
        finally:
            connection.abort()
            await connection.wait_closed()

    assert asyncio.run(run()) == ("reset" if reset else "silence")
    size = len(alpha.read("upload"))
    assert (0 if reset else 512 << 10) < size <= 1 << 20  # with a reset the server throws away what it still holds
    alpha.restore()
    assert ssh(alpha, "echo whole") == "whole\n"


# -- reboots and disks ------------------------------------------------------------------------------------------------
def test_a_reboot_ends_everything_and_keeps_the_home(alpha: Host) -> None:
    for place in ("/home/ada", "/var/tmp", "/tmp", "/dev/shm"):
        alpha.write(f"{place}/deep/mark", "mine")
    before = alpha.run("cat", "/proc/sys/kernel/random/boot_id").strip()
    assert before == alpha.boot_id != Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    ssh(alpha, "setsid -f nohup sleep 1004 > /dev/null 2>&1 < /dev/null")
    (sleeper,) = [process for process in alpha.processes() if "1004" in process.argv]

    async def work(connection: asyncssh.SSHClientConnection) -> None:
        alpha.power_off()
        until_gone(sleeper.outer)
        with pytest.raises(TimeoutError):  # nobody said goodbye
            await asyncio.wait_for(connection.wait_closed(), 0.3)
        with pytest.raises(LabError, match="alpha is off"):
            alpha.processes()
        alpha.power_on()
        with pytest.raises((asyncssh.Error, OSError)):  # the new kernel knows of no such connection
            await asyncio.wait_for(connection.run("true", check=True), 10)

    with_connection(alpha, work)
    assert alpha.run("cat", "/proc/sys/kernel/random/boot_id").strip() == alpha.boot_id != before
    assert [alpha.exists(f"{place}/deep") for place in ("/home/ada", "/var/tmp", "/tmp", "/dev/shm")] == [
        *(True, True),
        *(False, False),
    ]
    assert all("1004" not in process.argv for process in alpha.processes())
    assert ssh(alpha, "hostname") == "alpha\n"


def test_a_full_disk_is_full(lab: Lab) -> None:
    small = lab.host("small", home_size="2m")
    small.fill_disk()
    said = ssh(small, "echo word > note", check=False)
    assert said.startswith("1 ")
    assert "No space left on device" in said
    assert ssh(small, "echo word > /tmp/note") == ""
    small.free_disk()
    small.fill_disk(leave=10_000)
    assert ssh(small, "head -c 8192 /dev/zero > note && wc -c < note").strip() == "8192"
    assert "No space left" in ssh(small, "head -c 20000 /dev/zero > note", check=False)
    small.free_disk()
    assert ssh(small, "head -c 20000 /dev/zero > note && wc -c < note").strip() == "20000"
    lab.remove(small)


# -- a proxy ----------------------------------------------------------------------------------------------------------
def test_a_proxy_cuts_at_the_byte(alpha: Host) -> None:
    with Proxy((alpha.address, 22)) as proxy:
        login = alpha.login.through(*proxy.address)
        assert subprocess.run(login.ssh("hostname"), capture_output=True, timeout=30, check=True).stdout == b"alpha\n"
        until(lambda: proxy.connections() == 0, "the connection to end")
        before = proxy.passed["up"]
        proxy.cut_after(100_000)
        done = subprocess.run(login.ssh("cat > upload"), input=b"x" * 1_000_000, capture_output=True, timeout=30)
        assert done.returncode == 255
        assert proxy.passed["up"] - before == 100_000
        assert subprocess.run(login.ssh("true"), capture_output=True, timeout=30).returncode == 255
        proxy.restore()
        assert subprocess.run(login.ssh("true"), capture_output=True, timeout=30).returncode == 0
        until(lambda: proxy.connections() == 0, "the connections to end")
    assert 0 < len(alpha.read("upload")) < 100_000


# -- nothing is left --------------------------------------------------------------------------------------------------
def test_nothing_is_left_of_a_closed_lab() -> None:
    lab = Lab()
    number = lab.address.split(".")[2]
    host = lab.host("short")
    ssh(host, "setsid -f nohup sleep 1005 > /dev/null 2>&1 < /dev/null")
    until(lambda: len(host.processes()) == 2, "nothing but sshd and the sleeper")
    alive = [process.outer for process in host.processes()]
    namespaces = {(kind, Path(f"/proc/{alive[0]}/ns/{kind}").readlink()) for kind in KINDS}
    assert any(item.startswith("link ") for item in lab.left())
    lab.close()
    lab.close()
    assert lab.left() == []
    assert not [name for name in bridge.links() if name == f"tlab{number}" or name.startswith(f"tlab{number}p")]
    assert "tune-lab" not in Path("/proc/self/mountinfo").read_text()
    assert not (bridge.PLACE / number).exists()
    for pid in alive:
        until_gone(pid)
    assert not namespaces & all_namespaces()


def all_namespaces() -> set[tuple[str, Path]]:
    """The namespaces of all living processes."""
    found: set[tuple[str, Path]] = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            for kind in KINDS:
                try:
                    found.add((kind, (entry / "ns" / kind).readlink()))
                except OSError:
                    break
    return found


def test_a_failed_start_leaves_nothing(lab: Lab) -> None:
    before = lab.left()
    for wrong, why in (({"home_size": "much"}, "tmpfs"), ({"sshd_lines": ("Nonsense 1",)}, "Nonsense")):
        with pytest.raises(LabError, match=why):
            lab.host("broken", **wrong)
        assert lab.left() == before


def test_a_killed_run_is_swept_by_the_next() -> None:
    program = "from lab.network import Lab; made = Lab(); made.host('gone'); print(made.address, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(HERE.parent)},
    ) as process:
        assert process.stdout is not None
        number = process.stdout.readline().decode().split(".")[2]
        assert f"tlab{number}" in bridge.links()
        with Lab() as other:  # at the same time: another number
            assert other.address.split(".")[2] != number
        os.kill(process.pid, signal.SIGKILL)
    # The port goes with the host, whose processes end by themselves; the bridge waits for the next lab.
    until(lambda: not [name for name in bridge.links() if name.startswith(f"tlab{number}p")], "the host to be gone")
    assert f"tlab{number}" in bridge.links()
    bridge.sweep()
    assert f"tlab{number}" not in bridge.links()
    assert not (bridge.PLACE / number).exists()
