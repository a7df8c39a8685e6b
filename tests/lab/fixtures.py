"""The lab as a fixture. A folder of tests that wants it says in its conftest.py:

from lab.fixtures import lab as lab
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.network import Lab, why_not


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A lab without hosts, for all tests of a module; `lab.host(name)` adds one. Afterwards nothing may be left of it.

    Where no lab can be had the tests are skipped, and the reason said; in CI that is a failure (tests/conftest.py).
    """
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with Lab() as made:
        yield made
    assert made.left() == []
