"""The spool: torn at every byte, flipped at every byte, a full disk, and what the reader makes of each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.trial_sdk import spool
from tune.trial_sdk.wire import MAX_FRAME, Report

texts = st.text(max_size=40)
records = st.lists(st.tuples(st.sampled_from("IFR"), st.integers(0, 1 << 40), texts), max_size=12)


def whole(items):
    return [Report(n, *item) for n, item in enumerate(items, 1)]


def write(path, items):
    writer = spool.Spool(str(path))
    numbers = [writer.append(*item) for item in items]
    writer.close()
    return numbers


@given(records)
def test_what_is_written_is_read(tmp_path_factory, items):
    path = tmp_path_factory.mktemp("s") / "1.spool"
    assert write(path, items) == list(range(1, len(items) + 1))
    data = path.read_bytes()
    assert spool.parse(data) == whole(items)
    assert spool.scan(data, 0) == (len(data), len(items))


@given(records, st.binary(max_size=30))
def test_a_torn_tail_is_left_out_at_every_byte(items, _):
    frames = [spool.frame(report) for report in whole(items)]
    data = b"".join(frames)
    for cut in range(len(data) + 1):
        count, end = 0, 0
        while count < len(frames) and end + len(frames[count]) <= cut:
            end += len(frames[count])
            count += 1
        assert spool.scan(data[:cut], 0) == (end, count)
        assert spool.parse(data[:cut]) == whole(items)[:count]


def test_the_writer_goes_on_after_every_cut(tmp_path):
    items = [("I", 0, "1"), ("I", 0, "2.5"), ("F", 0, '{"default":1}')]
    data = b"".join(map(spool.frame, whole(items)))
    for cut in range(len(data) + 1):
        path = tmp_path / f"{cut}.spool"
        path.write_bytes(data[:cut])
        kept = len(spool.parse(data[:cut]))
        assert write(path, [("F", 3, "9")]) == [kept + 1]
        assert spool.parse(path.read_bytes()) == [*whole(items)[:kept], Report(kept + 1, "F", 3, "9")]


def test_zeros_of_a_power_cut_are_a_torn_tail(tmp_path):
    path = tmp_path / "1.spool"
    data = spool.frame(Report(1, "I", 0, "1"))
    path.write_bytes(data + bytes(4096))
    assert spool.parse(path.read_bytes()) == [Report(1, "I", 0, "1")]
    assert write(path, [("I", 0, "2")]) == [2]
    assert path.read_bytes() == data + spool.frame(Report(2, "I", 0, "2"))


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_every_flipped_byte_is_found(mask):
    items = [("I", 0, "1"), ("I", 0, "2.5"), ("F", 0, "3")]
    data = b"".join(map(spool.frame, whole(items)))
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= mask
        try:
            reports = spool.parse(bytes(changed))
        except spool.SpoolDamaged:
            continue
        # A length that grew beyond the end makes a torn tail: what is left is a true prefix.
        assert len(reports) < len(items)
        assert reports == whole(items)[: len(reports)]


def test_the_writer_refuses_damage_before_the_tail(tmp_path):
    path = tmp_path / "1.spool"
    data = bytearray(b"".join(map(spool.frame, whole([("I", 0, "1"), ("I", 0, "2")]))))
    data[10] ^= 1
    path.write_bytes(data)
    with pytest.raises(spool.SpoolDamaged):
        spool.Spool(str(path))
    assert path.read_bytes() == data


def test_a_last_frame_torn_inside_is_cut(tmp_path):
    path = tmp_path / "1.spool"
    first, second = map(spool.frame, whole([("I", 0, "1"), ("I", 0, "2")]))
    path.write_bytes(first + second[:-2] + b"\0\0")
    assert write(path, []) == []
    assert path.read_bytes() == first


def test_garbage_is_damage_and_nothing_else():
    with pytest.raises(spool.SpoolDamaged):
        spool.scan((MAX_FRAME + 1).to_bytes(4, "big") + bytes(20), 0)
    with pytest.raises(spool.SpoolDamaged):
        spool.parse(b"\0\0\0\1\0\0\0\0x")


@given(st.binary(max_size=200))
def test_random_bytes_never_do_anything_else(data):
    try:
        spool.parse(data)
    except spool.SpoolDamaged:
        pass


def test_a_report_too_long_is_refused_and_costs_no_number(tmp_path):
    writer = spool.Spool(str(tmp_path / "1.spool"))
    with pytest.raises(ValueError, match="too long"):
        writer.append("I", 0, "x" * (MAX_FRAME + 1))
    assert writer.append("I", 0, "1") == 1
    writer.sync()
    writer.close()


def test_a_full_disk_leaves_no_half_report(tmp_path):
    path = tmp_path / "1.spool"
    script = f"""
import resource, signal
from tune.trial_sdk import spool
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
writer = spool.Spool({str(path)!r})
writer.append("I", 0, "1")
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
try:
    writer.append("I", 0, "2" * 500)
except OSError as error:
    print(error.errno)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(writer.append("F", 0, "3"))
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["27", "2"]  # EFBIG, then number 2
    assert spool.parse(path.read_bytes()) == [Report(1, "I", 0, "1"), Report(2, "F", 0, "3")]


def test_a_killed_writer_loses_nothing_that_append_returned(tmp_path):
    path = tmp_path / "1.spool"
    script = f"""
import os
from tune.trial_sdk import spool
writer = spool.Spool({str(path)!r})
while True:
    os.write(1, b"%d\\n" % writer.append("I", 0, "1"))
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), True)
        for _ in range(50):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        said = [line for line in process.stdout.read().split(b"\n") if line]
        last = int(said[-1]) if said else 50
    count = len(spool.parse(path.read_bytes()))
    assert last <= count <= last + 1
