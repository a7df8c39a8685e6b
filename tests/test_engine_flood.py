"""The flood policy: what is recorded, what is left out, and that nothing is left out silently."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tune.engine.flood import FULL, one_in, thinned
from tune.trial_sdk import spool
from tune.trial_sdk.wire import Report


def test_the_first_hundred_thousand_are_recorded_one_and_all() -> None:
    assert {one_in(number) for number in (1, 2, FULL)} == {1}
    assert one_in(FULL + 1) == one_in(10 * FULL) == 10
    assert one_in(10 * FULL + 1) == 100
    assert one_in(10**12) == 1000


@given(
    start=st.integers(1, 30 * FULL),
    kinds=st.text("IIIIIFR", min_size=1, max_size=300),
    cut=st.integers(0, 300),
)
def test_recorded_and_left_out_together_are_every_number(start: int, kinds: str, cut: int) -> None:
    reports = [Report(start + index, kind, 0, "1") for index, kind in enumerate(kinds)]
    numbers: list[int] = []
    for item in [*thinned(reports[:cut]), *thinned(reports[cut:])]:
        if isinstance(item, tuple):
            left_out = range(item[0], item[1] + 1)
            assert all(reports[number - start].kind == "I" for number in left_out)
            assert all(number % one_in(number) for number in left_out)
            numbers += left_out
        else:
            numbers.append(item.number)
    assert numbers == [report.number for report in reports]


@given(damaged=st.sets(st.integers(0, 9)), first=st.integers(1, 1000), bit=st.integers(0, 7))
def test_a_damaged_report_costs_itself_only(damaged: set[int], first: int, bit: int) -> None:
    frames = [spool.frame(Report(first + index, "I", 0, str(index))) for index in range(10)]
    for index in damaged:
        frame = bytearray(frames[index])
        frame[-1] ^= 1 << bit
        frames[index] = bytes(frame)
    found = spool.salvage(b"".join(frames), first)
    assert [report.number for report in found] == list(range(first, first + 10))
    assert {index for index, report in enumerate(found) if report.kind == "X"} == damaged
