"""The portal's page in a real Chromium: every view, live, with commands, over killed engines, with hostile names."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import select
import signal
import socket
from collections.abc import Iterator
from typing import Any

import made_log
import pytest
from harness import Bench
from playwright.sync_api import expect
from seen import Seen

from tune.engine import home
from tune.engine.client import Opening, start
from tune.engine.events import Status

VIEWS = {  # what each one shows when it is there
    "overview": "#progress",
    "trials": ".line",
    "figures/history": "#figure .main-svg",
    "hosts": "#hosts .card",
    "log": "#events details",
    "config": "#config",
    "experiments": "main table .badge",
    "api": "#api details",
}
FIGURES = ("intermediate", "parallel", "slice", "contour", "importance", "edf", "rank", "timeline")


def begun(bench: Bench, seen: Seen, **fields: Any) -> tuple[Any, int]:
    """A running experiment whose page is open, and its port."""
    experiment = bench.experiment(**fields)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        portal = Opening(listening, "token")
        url, port = portal.url, portal.port
        experiment.pid = start(experiment.folder, actor="test", portal=portal)
    seen.page.goto(url)
    expect(seen.page.locator("#id")).to_have_text(experiment.id)
    return experiment, port


@contextlib.contextmanager
def viewed(bench: Bench, experiment: Any) -> Iterator[str]:
    """The link of a `tune view` of an experiment, which ends with the block."""
    process = bench.spawn("view", experiment.id, "--port", "0")
    assert process.stdout is not None
    try:
        assert select.select([process.stdout], [], [], 60)[0], "no link was printed"
        yield process.stdout.readline().split()[-1]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    finally:
        process.kill()
        process.communicate(timeout=10)


def at(seen: Seen, view: str) -> None:
    """Go to a view of the page that is open, and wait until it is drawn."""
    seen.page.evaluate("view => { location.hash = view }", view)
    figure = "#figure .main-svg" if view.startswith("figures") else ""
    expect(seen.page.locator(VIEWS.get(view) or figure or "#output").first).to_be_visible()


def slide(seen: Seen, seq: int) -> None:
    """Move the time slider to an event, as a drag does."""
    seen.page.locator("footer input").evaluate(
        "(slider, seq) => { slider.value = seq; slider.dispatchEvent(new Event('input')) }", seq
    )
    expect(seen.page.locator("#connection")).to_contain_text(f"as of event {seq}")


def test_it_lives_and_does_what_it_is_told(bench: Bench, seen: Seen) -> None:
    experiment, _ = begun(
        bench, seen, trial_command=bench.fake(steps=30, sleep=0.05), trial_concurrency=1, max_trial_number=500
    )
    page = seen.page
    expect(page.locator("#connection")).to_contain_text("live")
    expect(page.locator("#progress")).to_have_text(re.compile("^[1-9]"))  # a trial has ended, without a reload
    at(seen, "log")
    page.locator("#events summary").first.click(position={"x": 5, "y": 5})
    opened = page.locator("#events details[open]")
    seq = opened.get_attribute("data-seq")
    expect(page.locator("#events details").first).not_to_have_attribute("data-seq", seq or "")
    expect(opened).to_have_attribute("data-seq", seq or "")  # what comes leaves it open
    at(seen, "overview")
    link = page.get_by_role("link", name="hosts and slots")
    link.focus()
    progress = page.locator("#progress").text_content() or ""
    expect(page.locator("#progress")).not_to_have_text(progress)
    expect(link).to_be_focused()
    for name, value, attribute in (
        ("concurrency", "3", "trial_concurrency"),
        ("max_trials", "400", "max_trial_number"),
        ("duration", "3h", "max_experiment_duration"),
    ):
        page.locator(f"input[name={name}]").fill(value)
        page.locator(f"input[name={name}]").press("Enter")
        experiment.until(lambda state, a=attribute, v=value: str(getattr(state.settings, a)) in (v, "10800.0", "3h"))
    expect(page.locator("#card-slots h2").first).to_contain_text("of 3")
    for title, text, fact in (
        ("Add a trial", '{"x": 0.125, "n": 77}', b"0.125"),
        (
            "Search space",
            '{"x": {"_type": "uniform", "_value": [0, 0.5]}, "n": {"_type": "choice", "_value": [7]}}',
            b"",
        ),
        ("Import results", '[{"parameter": {"x": 0.25, "n": 7}, "value": 9.5}]', b""),
    ):
        page.get_by_role("button", name=title).click()
        box = page.locator("dialog[open]")
        box.locator("textarea").fill("{")
        box.get_by_role("button", name="OK").click()
        expect(box.get_by_role("alert")).to_have_text("this is not JSON")
        box.locator("textarea").fill(text)
        box.get_by_role("button", name="OK").click()
        expect(box).to_have_count(0)
        if fact:
            experiment.until(lambda state, f=fact: any(f in bytes(p.parameters) for t in state.made for p in t.phases))
    assert {"UPDATE", "IMPORT"} <= {row.kind for row in experiment.rows()}
    at(seen, "config")
    expect(page.locator("#space")).to_contain_text("choice")
    page.locator("textarea[name=notes]").fill("ein Versuch")
    page.get_by_role("button", name="Keep").click()
    expect(page.get_by_role("status").filter(has_text="kept")).to_be_visible()
    number = next(reversed(experiment.until(lambda state: state.active).active))
    at(seen, f"trial/{number}")
    kill = page.locator("button[name=kill]")
    expect(kill).to_be_enabled()
    kill.click()
    experiment.until(lambda state: state.counts["USER_CANCELED"] == 1)
    expect(page.locator("#trial .badge").first).to_have_text("USER_CANCELED")
    at(seen, "overview")
    page.locator("button[name=stop]").click()
    expect(page.locator("header .badge")).to_have_text("STOPPED")
    expect(page.locator("#notice")).to_contain_text(f"tune resume {experiment.id}")
    experiment.finish()


def test_every_view_the_past_the_keys_the_theme_and_a_phone(bench: Bench, seen: Seen) -> None:
    experiment = bench.experiment(trial_command=bench.fake(steps=3), max_trial_number=6, trial_concurrency=2)
    experiment.run()
    page = seen.page
    with viewed(bench, experiment) as url:
        page.goto(url.partition("?")[0])
        assert "link that tune printed" in page.content()  # without the link there is nothing
        page.goto(url)
        expect(page.locator("#progress")).to_have_text("6 / 6")
        assert "token" not in page.url and page.evaluate("document.cookie") == ""
        for view in (*VIEWS, "trial/5", *(f"figures/{name}" for name in FIGURES)):
            at(seen, view)
        at(seen, "figures/parallel")
        box = page.locator(".parallel g rect:not(.brush)").first.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 1)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.up()
        expect(page.get_by_role("status").filter(has_text="of 6 results")).to_be_visible()
        for key, view in (("t", "trials"), ("h", "hosts"), ("a", "api"), ("l", "log"), ("o", "overview")):
            page.keyboard.press(key)
            expect(page).to_have_url(re.compile(f"#{view}$"))
        page.keyboard.press("?")
        expect(page.locator("dialog[open] kbd").first).to_be_visible()
        page.keyboard.press("Escape")
        before = page.locator("html").get_attribute("data-theme")
        page.keyboard.press("d")
        expect(page.locator("html")).not_to_have_attribute("data-theme", before or "")

        at(seen, "trials")
        page.locator("input[name=filter]").fill("number<2")
        expect(page.locator("#count")).to_have_text("2 of 6 trials")
        page.locator("input[name=filter]").fill("")
        with page.expect_download() as saving:
            page.get_by_role("link", name="Save as csv").click()
        assert saving.value.suggested_filename == f"{experiment.id}.csv"
        assert saving.value.path().read_text() == bench.tune("export", experiment.id).stdout
        page.locator(".table").press("ArrowDown")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_have_text("Trial 4")

        at(seen, "log")
        page.get_by_role("button", name="Check the log").click()
        expect(page.locator("#verified")).to_have_text(f"ok: {len(experiment.rows())} good events")

        ends = [row.seq for row in experiment.facts("TRIAL_END")]
        slide(seen, ends[1])
        at(seen, "overview")
        expect(page.locator("#progress")).to_have_text("2 / 6")
        expect(page.locator("header .badge")).to_have_text("RUNNING")
        at(seen, "hosts")
        expect(page.locator("#hosts")).to_contain_text("Slots: ")
        page.keyboard.press(",")
        expect(page.locator("#moment")).to_contain_text(f"event {ends[1] - 1} of")
        at(seen, "log")
        expect(page.locator("#events details").first).to_have_attribute("data-seq", str(ends[1] - 1))
        page.locator("#events details a").nth(3).click()
        expect(page.locator("#moment")).to_contain_text(f"event {ends[1] - 4} of")
        at(seen, "trials")
        expect(page.locator(".line .SUCCEEDED")).to_have_count(1)
        page.keyboard.press("n")
        expect(page.locator(".line .SUCCEEDED")).to_have_count(6)

        page.set_viewport_size({"width": 380, "height": 780})
        for view in (*VIEWS, "trial/5"):
            at(seen, view)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), view
        at(seen, "overview")
        expect(page.locator("button[name=stop]")).to_be_disabled()  # there is nobody to ask


def test_a_page_goes_on_after_a_kill_and_a_resume(bench: Bench, seen: Seen) -> None:
    experiment, port = begun(
        bench, seen, trial_command=bench.fake(steps=5, sleep=0.05), max_trial_number=8, trial_concurrency=2
    )
    page = seen.page
    page.evaluate("""() => {
        window.heard = [];
        const stream = new EventSource('/api/log/stream');
        stream.addEventListener('message', (event) => heard.push(Number(event.lastEventId)));
    }""")
    at(seen, "log")
    experiment.until(lambda state: state.counts["SUCCEEDED"] >= 2)
    os.kill(experiment.pid, signal.SIGKILL)
    expect(page.locator("#notice")).to_contain_text(f"tune resume {experiment.id} --port {port}")
    with socket.create_server(("127.0.0.1", port)) as listening:
        experiment.pid = start(experiment.folder, actor="test", portal=Opening(listening, "another"))
    expect(page.locator("header .badge")).to_have_text("DONE")
    experiment.finish()
    written = [row.seq for row in experiment.rows()]
    shown = page.locator("#events details").evaluate_all("lines => lines.map((line) => Number(line.dataset.seq))")
    assert shown == written[::-1]
    assert page.evaluate("heard") == written  # each once, in order
    at(seen, "trials")
    expect(page.locator("#count")).to_have_text("8 of 8 trials")
    expect(page.locator(".line .SUCCEEDED")).to_have_count(8)


HOSTILE = "<img src=x onerror=\"document.title='hit'\"></script><script>document.title='hit'</script>\u202e'\"`${1}"


def test_hostile_names_are_text(bench: Bench, seen: Seen) -> None:
    space = {
        HOSTILE: {"_type": "choice", "_value": [HOSTILE, "javascript:document.title='hit'"]},
        "x": {"_type": "uniform", "_value": [0, 1]},
    }
    command = bench.script(
        "import sys, tune\nparameters = tune.get_next_parameter()\n"
        f"print({HOSTILE!r}); print({HOSTILE!r}, file=sys.stderr)\n"
        "tune.report_intermediate_result(parameters['x'])\n"
        f"tune.report_final_result({{'default': parameters['x'], {HOSTILE!r}: {HOSTILE!r}}})\n"
        f"sys.exit({HOSTILE!r} if tune.get_sequence_id() == 3 else 0)\n"
    )
    experiment = bench.experiment(
        experiment_name=HOSTILE, search_space=space, trial_command=command, max_trial_number=8
    )
    experiment.run()
    page = seen.page
    with viewed(bench, experiment) as url:
        page.goto(url)
        expect(page.locator("header .name")).to_contain_text("<img src=x")
        for view in (*VIEWS, *(f"figures/{name}" for name in FIGURES if name != "contour"), "trial/3", "trial/0"):
            at(seen, view)
            if view == "log":
                page.locator("#events details").first.click()
        expect(page.locator("#output")).to_contain_text("<img src=x")
        at(seen, "trials")
        page.locator("input[name=filter]").fill(HOSTILE.split()[0])
        expect(page.locator("#count")).to_have_text("8 of 8 trials")
        page.evaluate("text => { location.hash = `trial/${encodeURIComponent(text)}` }", HOSTILE)
        expect(page.locator("#trial")).to_contain_text("<img src=x")
        expect(page).not_to_have_title("hit")
        assert page.locator("img").count() == 0


def test_several_objectives_and_another_experiment_beside(bench: Bench, seen: Seen) -> None:
    command = bench.script(
        "import tune\nx = tune.get_next_parameter()['x']\ntune.report_final_result({'loss': x, 'size': 1 - x})\n"
    )
    other = bench.experiment(trial_command=bench.fake(steps=1), max_trial_number=3)
    other.start()
    experiment = bench.experiment(
        trial_command=command, max_trial_number=5, objectives={"loss": "minimize", "size": "minimize"}
    )
    experiment.run()
    other.finish()
    page = seen.page
    with viewed(bench, experiment) as url:
        page.goto(url)
        expect(page.locator("#card-best tbody tr")).to_have_count(5)  # none beats another
        expect(page.locator("#card-best th")).to_have_text(["", "loss", "size", "parameters"])
        at(seen, "trials")
        expect(page.get_by_role("columnheader", name="size")).to_be_visible()
        at(seen, "figures/pareto")
        at(seen, "experiments")
        page.get_by_role("button", name="Compare").click()
        expect(page.locator("#compared")).to_contain_text(f"{experiment.id} beside {other.id}")
        expect(page.locator("#compared")).to_contain_text("objectives")


@pytest.fixture
def long(bench: Bench) -> Any:
    """An experiment of 10,000 trials that have all succeeded: `x` of trial n is n/10,000, its result n/3."""
    trials = 10_000

    async def write() -> home.Folder:
        folder, _ = home.create()
        settings = made_log.settings(bench.code, max_trial_number=trials)
        async with made_log.Writer.begin(folder, settings) as writer:
            for number in range(trials):
                point = {"x": number / trials, "n": number % 1000}
                writer.trial(point, reports=1, final=number / 3)
            writer.add(Status(status="DONE", reason="max_trial_number", clock=writer.seq))
        return folder

    return bench.known(asyncio.run(write()))


def test_ten_thousand_trials_of_a_real_log(bench: Bench, long: Any, seen: Seen) -> None:
    page = seen.page
    with viewed(bench, long) as url:
        page.goto(url)
        expect(page.locator("#progress")).to_have_text("10000 / 10000")
        at(seen, "trials")
        expect(page.locator("#count")).to_have_text("10000 of 10000 trials")
        assert page.locator(".line").count() < 120  # only what can be seen is there
        page.get_by_role("columnheader", name="Result").click()
        expect(page.locator(".line", has_text=re.compile("^0SUCCEEDED"))).to_be_visible()
        page.get_by_role("columnheader", name="Result").click()
        expect(page.locator(".line").first).to_contain_text("9999")
        page.locator(".table").evaluate("table => { table.scrollTop = table.scrollHeight }")
        expect(page.locator(".line", has_text=re.compile("^0SUCCEEDED"))).to_be_visible()
        page.locator("input[name=filter]").fill("x<0.01 n>=50")
        expect(page.locator("#count")).to_have_text("50 of 10000 trials")
        at(seen, "figures/history")
        at(seen, "hosts")
        expect(page.locator("#hosts")).to_contain_text("10000")
        at(seen, "trial/9999")
        expect(page.locator("#trial .big")).to_have_text("3333")
