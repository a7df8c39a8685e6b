"""Faults of the log in any number: killed writers, power cuts, failing system calls, changed bytes.

    python tests/crash/run_log.py kills --count 20000 --record docs/reliability/writer_kills.jsonl

WHAT: kills, cuts, errors, spool-errors, corruptions. Each failure is one REPRO line, and the exit code is then 1. The
negative controls (a promise before the commit, synchronous=NORMAL under power cuts, no look at a report's number) run
first, and must be caught.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import corruption
import power_cut
from log_checks import wrong_with_log, wrong_with_reopening, wrong_with_spool
from writer import KILL, ON_OPEN, ON_SYNC, ON_TRUNCATE, ON_UNLINK, ON_WRITE, Writer, acknowledged, room

EIO, ENOSPC = 5, 28
A_LIFE = 30  # crashes of one log


# -- SIGKILL ----------------------------------------------------------------------------------------------------------
def kills(count: int, seed: int, **control: bool) -> Iterator[str]:
    """Kill a writer `count` times, half at a random call and half at a random moment; yields what went wrong."""
    choose = random.Random(seed)
    with Writer() as writer:
        for start in range(0, count, A_LIFE):
            folder = room()
            log = folder / "events.db"
            for crash in range(start, min(start + A_LIFE, count)):
                acked = acknowledged(folder)
                job = {
                    "folder": str(folder),
                    "seed": choose.randrange(1 << 32),
                    "events": 400,
                    "made": acked is not None,
                    "acked": acked or 0,
                    **control,
                }
                if crash % 2:
                    part = choose.choice((0, 0, 1, 512, 3000))
                    what = ON_WRITE | ON_SYNC | ON_TRUNCATE | ON_OPEN | ON_UNLINK
                    job["fault"] = {"what": what, "n": choose.randrange(1, 220), "error": KILL, "part": part}
                else:
                    job["after"] = choose.random() * 0.05
                said = writer.run(**job)
                wrong = said.get("unexpected") or said.get("error") or ""
                if crash % 2 and said["code"] == 0 and not wrong:
                    wrong = "the writer was not killed"
                wrong = wrong or wrong_with_log(log, acknowledged(folder))
                if wrong:
                    yield f"crash {crash}: {wrong}"
                    break
            shutil.rmtree(folder)


def makings(seed: int) -> Iterator[str]:
    """Kill a writer at each single call of making a log and of its first events; the next one must get going."""
    what = ON_WRITE | ON_SYNC | ON_TRUNCATE | ON_OPEN | ON_UNLINK
    with Writer() as writer:
        for n, part in itertools.product(range(1, 60), (0, 1, 512)):
            folder = room()
            job: dict[str, object] = {"folder": str(folder), "seed": seed, "events": 3, "made": False, "acked": 0}
            killed = writer.run(**job, fault={"what": what, "n": n, "error": KILL, "part": part})
            acked = acknowledged(folder)
            said = writer.run(**{**job, "made": acked is not None, "acked": acked or 0})
            wrong = killed.get("unexpected") or said.get("unexpected") or said.get("error") or ""
            wrong = wrong or wrong_with_log(folder / "events.db", acknowledged(folder))
            if wrong:
                yield f"killed at call {n} (part {part}) of its making: {wrong}"
            shutil.rmtree(folder)


# -- power cuts -------------------------------------------------------------------------------------------------------
def recording(writer: Writer, seed: int, **job: object) -> list[power_cut.Op]:
    """What a writer of several lives wrote: made, closed well and badly, opened again."""
    folder, choose = room(), random.Random(seed)
    record = folder.with_suffix(".record")
    said = writer.run(
        folder=str(folder),
        record=str(record),
        seed=seed,
        made=False,
        lives=4,
        events=choose.choice((10, 30, 60)),
        batch=choose.choice((1, 5, 20)),
        padding=choose.choice((2, 60, 2000)),
        checkpoint_frames=choose.choice((6, 20, 1000)),
        mixed=True,
        **job,
    )
    assert said["code"] == 0 and "error" not in said and "unexpected" not in said, said
    ops = power_cut.read(record)
    shutil.rmtree(folder)
    record.unlink()
    return ops


def cuts(count: int, seed: int, **control: object) -> Iterator[str]:
    """Look at `count` images of power cuts; each 20th is written on as well."""
    choose = random.Random(seed)
    with Writer() as writer:
        for start in range(0, count, 500):
            own = choose.randrange(1 << 32)
            ops = recording(writer, own, **control)
            for number, (moment, acked, files) in enumerate(
                power_cut.images(ops, min(500, count - start), random.Random(own))
            ):
                folder = room()
                for name, content in files.items():
                    (folder / name).write_bytes(content)
                path = folder / "events.db"
                wrong = wrong_with_log(path, acked)
                if not wrong and acked is not None and number % 20 == 0:
                    wrong = wrong_with_reopening(path)
                if wrong:
                    yield f"recording {own}, image {number} at call {moment} of {len(ops)}: {wrong}"
                    keep(folder)
                shutil.rmtree(folder, ignore_errors=True)


def keep(folder: Path) -> None:
    """Put a bad image aside where TUNE_KEEP names a folder."""
    if target := os.environ.get("TUNE_KEEP"):
        shutil.copytree(folder, Path(target) / folder.name)


# -- failing system calls ---------------------------------------------------------------------------------------------
LOG_CALLS = {"write": ON_WRITE, "sync": ON_SYNC, "truncate": ON_TRUNCATE, "open": ON_OPEN, "unlink": ON_UNLINK}


def errors(count: int, seed: int) -> Iterator[str]:
    """Fail the n-th call of a kind for every n of a run of 200 events (`count` 0: all; else so many of them)."""
    with Writer() as writer:
        points = list(_points(writer, seed))
        if count:
            points = random.Random(seed).sample(points, min(count, len(points)))
        for kind, n, error, times, part in points:
            yield from _one_error(writer, seed, kind, n, error, times, part)


def _points(writer: Writer, seed: int) -> Iterator[tuple[str, int, int, int, int]]:
    for kind, what in LOG_CALLS.items():
        folder = room()
        said = writer.run(
            folder=str(folder), seed=seed, events=100, lives=2, made=False, checkpoint_frames=20, fault={"what": what}
        )
        shutil.rmtree(folder)
        for n in range(1, said["calls"] + 1):
            for error, times in ((EIO, 1), (EIO, 1 << 30), (ENOSPC, 1), (ENOSPC, 3), (ENOSPC, 40)):
                parts = (0, 24) if kind == "write" else (0,)
                for part in parts:
                    yield kind, n, error, times, part


def _one_error(writer: Writer, seed: int, kind: str, n: int, error: int, times: int, part: int) -> Iterator[str]:
    folder = room()
    record = folder.with_suffix(".record")
    fault = {"what": LOG_CALLS[kind], "n": n, "error": error, "count": times, "part": part}
    said = writer.run(
        folder=str(folder),
        record=str(record),
        seed=seed,
        events=100,
        lives=2,
        made=False,
        checkpoint_frames=20,
        fault=fault,
    )
    at = f"{kind} {n} fails {times} times with {error} after {part} bytes"
    path, acked = folder / "events.db", acknowledged(folder)
    wrong = ""
    if said["code"] or "unexpected" in said:
        wrong = f"the writer ended with {said}"
    elif said.get("undead"):
        wrong = "an append went through after the handle had died"
    elif kind == "write" and error == ENOSPC and "error" in said and "open" not in said["error"] and acked is not None:
        wrong = f"a full disk was not waited for: {said['error']}"
    elif "error" not in said and acked != 200:
        wrong = f"no error, and {acked} of 200 promised"
    wrong = wrong or wrong_with_log(path, acked, 200)
    if not wrong and acked is not None:
        wrong = wrong_with_reopening(path)
    if not wrong and kind in ("sync", "write"):  # and now the power goes, which takes what that fsync did not write
        ops = power_cut.read(record)
        disk = power_cut.Disk()
        for op in ops:
            disk.apply(op)
        choose = random.Random(n)
        for _ in range(2):
            image = room()
            for name, content in disk.image(choose).items():
                (image / name).write_bytes(content)
            wrong = wrong or wrong_with_log(image / "events.db", acked, 200)
            shutil.rmtree(image)
        at += ", then a power cut" if wrong else ""
    if wrong:
        yield f"{at}: {wrong}"
    shutil.rmtree(folder)
    record.unlink(missing_ok=True)


def _spool_points(writer: Writer, seed: int) -> Iterator[tuple[int, int, int, int]]:
    folder = room()
    calls = writer.run(folder=str(folder), seed=seed, events=200, kind="spool")["calls"]
    shutil.rmtree(folder)
    return itertools.product(range(1, calls + 1), (EIO, ENOSPC), (1, 2, 3, 4, 9, 1 << 30), (0, 7))


def spool_errors(count: int, seed: int) -> Iterator[str]:
    """The same for a spool, whose owner tries again."""
    with Writer() as writer:
        points = list(_spool_points(writer, seed))
        if count:
            points = random.Random(seed).sample(points, min(count, len(points)))
        for n, error, times, part in points:
            folder = room()
            fault = {"n": n, "error": error, "count": times, "part": part}
            said = writer.run(folder=str(folder), seed=seed, events=200, kind="spool", fault=fault)
            wrong = f"the writer ended with {said}" if said["code"] or "unexpected" in said else ""
            if wrong or (wrong := wrong_with_spool(folder / "1.spool", acknowledged(folder) or 0)):
                yield f"call {n} fails {times} times with {error} after {part} bytes: {wrong}"
            shutil.rmtree(folder)


def all_points(what: str, seed: int) -> int:
    """How many errors there are to be tried."""
    with Writer() as writer:
        return len(list(_points(writer, seed) if what == "errors" else _spool_points(writer, seed)))


# -- controls ---------------------------------------------------------------------------------------------------------
def controls(what: str, seed: int) -> None:
    """The same search with a writer that is wrong on purpose: it must find something."""
    wrong: dict[str, Iterator[str]] = {}
    if what == "kills":
        wrong = {"ack before commit": kills(150, seed, early=True), "no dedup": kills(30, seed, dedup=False)}
    elif what == "cuts":
        wrong = {
            "synchronous=NORMAL": cuts(500, seed, synchronous="NORMAL"),
            "ack before commit": cuts(500, seed, early=True),
        }
    for name, found in wrong.items():
        if next(found, None) is None:
            raise SystemExit(f"the control {name!r} was not caught: this test sees nothing")
        found.close()  # type: ignore[attr-defined]


# -- the program ------------------------------------------------------------------------------------------------------
def _share(arguments: tuple[str, int, int]) -> list[str]:
    what, count, seed = arguments
    found = {
        "kills": kills,
        "cuts": cuts,
        "errors": errors,
        "spool-errors": spool_errors,
        "corruptions": corruption.search,
    }[what]
    return list(found(count, seed))


def main() -> int:
    """Run the search in `--jobs` processes, and write one line into `--record`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["kills", "cuts", "errors", "spool-errors", "corruptions"])
    parser.add_argument("--count", type=int, default=1000, help="0 with errors and spool-errors: every n")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--record", type=Path)
    given = parser.parse_args()
    begin = time.monotonic()
    controls(given.what, given.seed)
    jobs = 1 if given.what in ("errors", "spool-errors") else given.jobs
    if not given.count and given.what in ("errors", "spool-errors"):
        given.count = all_points(given.what, given.seed)
    shares = [(given.what, given.count // jobs + (job < given.count % jobs), given.seed + job) for job in range(jobs)]
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        results = pool.map(_share, shares, chunksize=1)
    bad = 0
    for (what, count, seed), found in zip(shares, results, strict=True):
        for line in found:
            bad += 1
            print(f"REPRO run_log.py {what} --jobs 1 --count {count} --seed {seed}: {line}")
    seeds = [seed for _, _, seed in shares]
    record(given.record, given.what, given.count, seeds, bad, time.monotonic() - begin)
    return 1 if bad else 0


def record(path: Path | None, what: str, count: int, seeds: list[int], violations: int, seconds: float) -> None:
    """Say what was reached, and add it to the file of all runs."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    line = json.dumps(
        {
            "what": what,
            "count": count,
            "seeds": seeds,
            "commit": commit,
            "violations": violations,
            "seconds": round(seconds, 1),
        }
    )
    print(line)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
