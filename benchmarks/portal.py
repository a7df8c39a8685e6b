"""The portal under viewers: how late they hear, what they cost the engine, and how fast the page is on a long log.

* lag: a real engine whose trials report 1,000 results/s together, 20 viewers on /api/stream. The lag of an event is
  from the stamp in the log to the arrival of the first message that covers it; one more viewer reads each event
  from /api/log/stream. Bytes are those of the sockets.
* cost: the same experiment with no portal and with 20 viewers, in turn: the engine's CPU time an event, and no-op
  trials a second. On few cores the viewers themselves take time from the trials.
* page: `tune view` of a log of 1,000,000 events and 10,000 trials in a headless Chromium: first paint, all trials,
  frames while the table is scrolled, memory.

    python benchmarks/portal.py [lag] [cost] [page] [--viewers 20] [--rate 1000] [--seconds 15] [--rounds 5]
                                [--events 1000000] [--short]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import select
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from replay import write
from side_by_side import ask_log, finish, folder, start

from tune.engine import client, home

PACED = """
import time
import tune
tune.get_next_parameter()
begin, number = time.perf_counter(), 0
while (passed := time.perf_counter() - begin) < {seconds}:
    while number < passed * {rate}:
        tune.report_intermediate_result(number / 7919)
        number += 1
    time.sleep(0.004)
tune.report_final_result(1.0)
"""
NO_OP = "import tune\ntune.get_next_parameter()\ntune.report_final_result(1)\n"
TRIALS = 8  # at once, in the paced experiment
ENDED = "SELECT wall_us FROM event WHERE kind = 'TRIAL_END' ORDER BY seq LIMIT 1 OFFSET {number}"
STARTING = 2.0  # seconds in which a portal has started
PATIENCE = 120.0  # seconds until something that must happen counts as not happening


def row(what: str, value: str, target: str = "") -> None:
    """One line of the table."""
    print(f"{what:<70}{value:>14}   {f'target: {target}' if target else ''}".rstrip(), flush=True)


# -- viewers: a process of their own ----------------------------------------------------------------------------------
async def watch(port: int, token: str, path: str, count: int) -> list[dict[str, Any]]:
    """So many connections to a stream, until the portal ends: of each the arrivals (seconds, event) and the bytes."""

    async def one() -> dict[str, Any]:
        found: dict[str, Any] = {"arrivals": [], "bytes": 0, "since": time.time()}
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n\r\n"
        writer.write(head.encode())
        rest = b""
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                now = time.time()
                found["bytes"] += len(data)
                *lines, rest = (rest + data).split(b"\n")
                found["arrivals"] += [(now, int(line[4:])) for line in lines if line.startswith(b"id: ")]
                rest = rest[-64:]  # what does not end here is no id
        writer.close()
        return found

    return await asyncio.gather(*(one() for _ in range(count)))


@contextlib.contextmanager
def viewers(port: int, token: str, path: str, count: int, into: Path) -> Iterator[None]:
    """Viewers of a portal while the block runs; the portal has to end in it. What they saw stands in the file."""
    command = [sys.executable, __file__, "--watch", str(port), token, path, str(count), str(into)]
    process = subprocess.Popen(command)
    try:
        yield
        process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()


def late(experiment: home.Folder, arrivals: Sequence[tuple[float, int]], since: float) -> list[float]:
    """How many seconds after its stamp each result of the trials, from `since` on, was covered by an arrival."""
    connection = sqlite3.connect(f"file:{experiment.events}?mode=ro", uri=True)
    stamps = connection.execute("SELECT seq, wall_us FROM event WHERE kind = 'METRIC' ORDER BY seq").fetchall()
    connection.close()
    found: list[float] = []
    at = 0
    for seq, wall in stamps:
        while at < len(arrivals) and arrivals[at][1] < seq:
            at += 1
        if wall / 1e6 > since and at < len(arrivals):
            found.append(arrivals[at][0] - wall / 1e6)
    return found


# -- experiments ------------------------------------------------------------------------------------------------------
def begin(base: Path, trial: str, *, portal: bool, **fields: Any) -> tuple[home.Folder, int]:
    """Start an experiment whose trials run this Python code; the portal's port (token "token"), 0 without one."""
    if not portal:
        return start(base, trial, **fields), 0
    with socket.create_server(("127.0.0.1", 0)) as listening:
        opening = client.Opening(listening, "token")
        return start(base, trial, portal=opening, **fields), opening.port


def paced(base: Path, seconds: float, rate: int, count: int) -> tuple[home.Folder, Taken, list[list[dict[str, Any]]]]:
    """Run the paced experiment with so many viewers (0: without a portal); the CPU time it took, what was seen."""
    trial = PACED.format(seconds=seconds, rate=rate / TRIALS)
    fields = {"max_trial_number": TRIALS, "trial_concurrency": TRIALS}
    made, port = begin(base, trial, portal=count > 0, **fields)
    pages, facts = base / "pages.json", base / "facts.json"
    with contextlib.ExitStack() as stack:
        if count:
            stack.enter_context(viewers(port, "token", "/api/stream", count, pages))
            stack.enter_context(viewers(port, "token", "/api/log/stream", 1, facts))
        taken = _until_it_ends(made)
    finish(made)
    return made, taken, [json.loads(path.read_text()) for path in (pages, facts)] if count else []


class Taken(NamedTuple):
    """CPU seconds of the engine, and the share of a core that its portal took once it had started."""

    engine: float
    portal: float


def _until_it_ends(experiment: home.Folder) -> Taken:
    """Wait for the end of the experiment; what its processes took until then."""
    pid, portal = client.engine_pid(experiment), _portal_of(experiment)
    engine = 0.0
    first = last = (0.0, 0.0)  # when, and what the portal had taken by then
    begun = time.monotonic()
    while (now := time.monotonic()) < begun + PATIENCE:
        taken, of_portal = _cpu(pid), _cpu(portal)
        if taken == 0.0:
            return Taken(engine, (last[1] - first[1]) / max(last[0] - first[0], 0.1))
        engine = taken
        if of_portal:
            first = first if now > begun + STARTING else (now, of_portal)
            last = (now, of_portal)
        time.sleep(0.02)
    raise SystemExit(f"{experiment.id} does not end")


def _cpu(pid: int | None) -> float:
    """CPU seconds of a process, 0 when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return 0.0 if fields[0] == "Z" else (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# -- measures ---------------------------------------------------------------------------------------------------------
def lag(options: argparse.Namespace) -> None:
    """How late viewers hear, and what is sent."""
    found: dict[str, list[float]] = {"pages": [], "facts": []}
    sent: list[float] = []
    with folder() as base:
        made, _, (pages, facts) = paced(base, options.seconds, options.rate, options.viewers)
        events = ask_log(made, "SELECT count(*) FROM event")[0]
        for name, seen in (("pages", pages), ("facts", facts)):
            for one in seen:
                found[name] += late(made, one["arrivals"], one["since"] + 1)
        sent = [one["bytes"] for one in pages]
        last = [one["arrivals"][-1][1] for one in (*pages, *facts)]
        took = ask_log(made, "SELECT max(wall_us) - min(wall_us) FROM event WHERE kind = 'METRIC'")[0] / 1e6
        rate = ask_log(made, "SELECT count(*) FROM event WHERE kind = 'METRIC'")[0] / took
    if min(last) < events:
        raise SystemExit(f"a viewer heard of {min(last)} events of {events}")
    at = f"at {rate:,.0f} events/s, {options.viewers} viewers"
    for name, what in (("pages", "page's stream"), ("facts", "every event")):
        ordered = sorted(found[name])
        if len(ordered) < 100:
            raise SystemExit(f"{len(ordered)} lags of {name}: the viewers came too late")
        row(f"lag, {what}, {at}: median", f"{1000 * statistics.median(ordered):.0f} ms")
        row(f"lag, {what}, {at}: p99", f"{1000 * ordered[int(len(ordered) * 0.99)]:.0f} ms", "< 1 s")
    row("sent to a page", f"{statistics.median(sent) / took / 1000:.1f} kB/s")
    row("sent to a page, an event", f"{statistics.median(sent) / events:.0f} bytes")


def cost(options: argparse.Namespace) -> None:
    """What viewers cost the engine."""
    cpu: dict[int, list[float]] = {0: [], options.viewers: []}
    pace: dict[int, list[float]] = {0: [], options.viewers: []}
    share: list[float] = []
    for turn in range(options.rounds):
        for count in (0, options.viewers) if turn % 2 == 0 else (options.viewers, 0):
            with folder() as base:
                made, taken, _ = paced(base, options.seconds / 3, options.rate, count)
                if count:
                    share.append(100 * taken.portal)
                cpu[count].append(1e6 * taken.engine / ask_log(made, "SELECT count(*) FROM event")[0])
            with folder() as base:
                pace[count].append(_no_ops(base, options.trials, count))
    for what, unit, measured, sign in (
        (f"engine's CPU time an event at {options.rate:,} events/s", "us", cpu, 1),
        ("no-op trials, 2 at a time", "/s", pace, -1),
    ):
        none, many = (statistics.median(measured[count]) for count in (0, options.viewers))
        each = [sign * (b / a - 1) for a, b in zip(measured[0], measured[options.viewers], strict=True)]
        row(f"{what}, no portal", f"{none:.1f} {unit}")
        row(f"{what}, {options.viewers} viewers", f"{many:.1f} {unit}")
        row("  slower by, median of the pairs", f"{100 * statistics.median(each):.1f} %", "< 5 %")
    row(f"portal's CPU time meanwhile, {options.viewers} viewers", f"{statistics.median(share):.0f} % of a core")


def _no_ops(base: Path, trials: int, count: int) -> float:
    """No-op trials a second, in the second half: until then the portal starts, and that takes a second of a core."""
    made, port = begin(base, NO_OP, portal=count > 0, max_trial_number=trials, trial_concurrency=2)
    with viewers(port, "token", "/api/stream", count, base / "seen.json") if count else contextlib.nullcontext():
        _until_it_ends(made)
    finish(made)
    half, last = (ask_log(made, ENDED.format(number=number))[0] for number in (trials // 2, trials - 1))
    return (trials - 1 - trials // 2) / ((last - half) / 1e6)


THERE = """() => new Promise((done) => {
    const look = () => (document.querySelector('#progress') ? done(performance.now()) : requestAnimationFrame(look));
    look();
})"""
SCROLL = """async (frames) => {
    const table = document.querySelector('.table');
    const took = [];
    let last = await new Promise(requestAnimationFrame);
    for (let frame = 0; frame < frames; frame++) {
        table.scrollTop += 437;
        const now = await new Promise(requestAnimationFrame);
        took.push(now - last);
        last = now;
    }
    return took;
}"""


def page(options: argparse.Namespace) -> None:
    """The page on a long log."""
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        raise SystemExit("this measure needs Chromium")
    with folder() as base:
        os.environ["TUNE_HOME"] = str(base / "home")
        made, _ = home.create()
        asyncio.run(write(made.events, options.events // 100))
        begin_ = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "tune.cli", "view", made.id, "--port", "0"], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        try:
            if not select.select([process.stdout], [], [], PATIENCE)[0]:
                raise SystemExit("no link was printed")
            url = process.stdout.readline().split()[-1]
            port = int(re.findall(r":(\d+)/", url)[0])
            _answers(port)
            row(f"portal of {options.events:,} events until it answers", f"{time.perf_counter() - begin_:.2f} s")
            _look(executable, url, options)
            row("memory of the portal's process", f"{_resident(_portal_of(made)):.0f} MB")
        finally:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()


def _look(executable: str, url: str, options: argparse.Namespace) -> None:
    from playwright.sync_api import sync_playwright

    painted: list[float] = []
    there: list[float] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        context = browser.new_context(viewport={"width": 1200, "height": 900})
        context.set_default_timeout(60_000)
        tab = context.new_page()
        tab.goto(url)  # the link is good once; then the page itself, again and again
        tab.locator("#progress").wait_for()
        for _ in range(options.rounds):
            tab.goto("about:blank")
            tab.goto(url.partition("?")[0], wait_until="commit")
            there.append(tab.evaluate(THERE))
            painted.append(
                tab.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? Infinity")
            )
        row("first paint of the page", f"{statistics.median(painted):.0f} ms", "< 1,000 ms")
        row("all trials there", f"{statistics.median(there):.0f} ms")
        tab.evaluate("location.hash = 'trials'")
        tab.locator(".line").first.wait_for()
        took = sorted(tab.evaluate(SCROLL, 120 if options.short else 400))
        row(f"frames while {options.events // 100:,} rows are scrolled: median", f"{statistics.median(took):.1f} ms")
        row("frames: p99", f"{took[int(len(took) * 0.99)]:.1f} ms", "< 50 ms")
        metrics = context.new_cdp_session(tab).send("Runtime.getHeapUsage")
        row("memory of the page (its JavaScript heap)", f"{metrics['usedSize'] / 1e6:.0f} MB")
        browser.close()


def _answers(port: int) -> None:
    """Wait until something answers at the port."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 60) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            connection.settimeout(60)
            if connection.recv(1):
                return
    raise SystemExit("the portal does not answer")


def _portal_of(experiment: home.Folder) -> int | None:
    """The pid of the portal's process; None without one."""
    wanted = os.fsencode(experiment.path)
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = entry.read_bytes().split(b"\0")
            if wanted in words and b"tune.portal.server" in words:
                return int(entry.parent.name)
    return None


def _resident(pid: int | None) -> float:
    """Megabytes of resident memory of a process that is there."""
    return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0]) / 1000


MEASURES = {"lag": lag, "cost": cost, "page": page}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MEASURES))
    parser.add_argument("--viewers", type=int, default=20)
    parser.add_argument("--rate", type=int, default=1000, help="events a second")
    parser.add_argument("--seconds", type=float, default=15.0, help="of the paced experiment")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=400, help="no-op trials of a round")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--short", action="store_true", help="a quick look: 1 round, 5 s, 100,000 events")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in MEASURES]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; allowed: {', '.join(MEASURES)}")
    if options.short:
        options.rounds, options.seconds, options.events = 1, 5.0, 100_000
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for name in options.names or MEASURES:
        MEASURES[name](options)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--watch"]:
        port_, token_, path_, count_, into_ = sys.argv[2:]
        Path(into_).write_text(json.dumps(asyncio.run(watch(int(port_), token_, path_, int(count_)))))
    else:
        main()
