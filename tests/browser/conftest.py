"""A real Chromium, once a module, and experiments with their pages open in it. Tests that use it run in its thread."""

from __future__ import annotations

import inspect
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "e2e"))
sys.path.insert(0, str(Path(__file__).parent))

from driven import Driven
from harness import Bench
from harness import bench as make_bench
from seen import Seen

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
BEGIN, TEST, END = 50.0, 90.0, 10.0  # seconds for a page to open, for a test, and for its page to close


@pytest.fixture(scope="module")
def chromium() -> Iterator[Driven]:
    """The browser."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium (Debian's package chromium)")
    from playwright.sync_api import expect

    expect.set_options(timeout=20_000)  # a busy machine draws a figure of 10,000 points in more than five seconds
    made = Driven(CHROMIUM)
    yield made
    made.end()


@pytest.fixture
def seen(chromium: Driven) -> Iterator[Seen]:
    """A page with a profile of its own; when the test is over nothing may have gone wrong in it."""

    def opened() -> Seen:
        context = chromium.context(viewport={"width": 1200, "height": 900})
        context.set_default_timeout(30_000)
        return Seen(context.new_page())

    made = chromium.do(opened, BEGIN)
    killed = chromium.killed
    yield made
    if chromium.killed == killed:
        chromium.do(made.page.context.close, END)
    assert made.errors == []


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """A test with a page runs in the browser's thread, no longer than `TEST`."""
    if "seen" not in pyfuncitem.funcargs:
        return None
    given = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    pyfuncitem.funcargs["chromium"].do(lambda: pyfuncitem.obj(**given), TEST)
    return True


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A place for whole experiments; when the test is over, nothing of them may be left."""
    with make_bench(tmp_path, monkeypatch.setenv) as made:
        yield made
