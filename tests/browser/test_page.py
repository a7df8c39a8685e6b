"""The portal's page in a real Chromium: every view, live, with commands, over killed engines, with hostile names."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from harness import Bench
from playwright.sync_api import expect
from seen import Seen

from tune.engine.client import Opening, start
from tune.portal.source import COLUMNS

VIEWS = {
    "overview": "#progress",
    "trials": ".line",
    "figures/history": "#figure .main-svg",
    "log": "#events details",
    "config": "#config",
    "experiments": "main .badge",
}


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


def at(seen: Seen, view: str) -> None:
    """Go to a view of the page that is open."""
    seen.page.evaluate("view => { location.hash = view }", view)


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


def ended(experiment: Any) -> None:
    assert experiment.bench.tune("stop", experiment.id, "--force").returncode == 0


def test_it_lives_and_does_what_it_is_told(bench: Bench, seen: Seen) -> None:
    experiment, _ = begun(
        bench, seen, trial_command=bench.fake(steps=30, sleep=0.05), trial_concurrency=1, max_trial_number=500
    )
    page = seen.page
    expect(page.locator("#connection")).to_contain_text("live")
    expect(page.locator("#progress")).to_have_text(re.compile("^[1-9]"))  # a trial has ended, without a reload
    page.locator("input[name=concurrency]").fill("3")
    page.locator("label", has_text="Concurrency").get_by_role("button").click()
    expect(page.locator("#card-slots h2").first).to_contain_text("of 3")
    page.get_by_role("button", name="Add a trial").click()
    page.locator("textarea[name=parameters]").fill('{"x": 0.125, "n": 77}')
    page.locator("dialog[open]").get_by_role("button", name="OK").click()
    experiment.until(
        lambda state: any(b"0.125" in bytes(phase.parameters) for one in state.made for phase in one.phases)
    )
    number = experiment.until(lambda state: state.active).active
    at(seen, f"trial/{next(reversed(number))}")
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


def test_every_view_the_slider_the_keys_the_theme_and_a_phone(bench: Bench, seen: Seen) -> None:
    experiment = bench.experiment(trial_command=bench.fake(steps=3), max_trial_number=6, trial_concurrency=2)
    experiment.run()
    with viewed(bench, experiment) as url:
        page = seen.page
        page.goto(url)
        expect(page.locator("#progress")).to_contain_text("6")
        for view, sign in VIEWS.items():
            at(seen, view)
            expect(page.locator(sign).first).to_be_visible()
        for figure in ("intermediate", "parallel", "slice", "contour", "importance", "edf", "rank", "timeline"):
            at(seen, f"figures/{figure}")
            expect(page.locator("#figure .main-svg").first).to_be_visible()
        for key, view in (("t", "trials"), ("l", "log"), ("o", "overview")):
            page.keyboard.press(key)
            expect(page).to_have_url(re.compile(f"#{view}$"))
        before = page.locator("html").get_attribute("data-theme")
        page.keyboard.press("d")
        expect(page.locator("html")).not_to_have_attribute("data-theme", before or "")
        at(seen, "trials")
        page.locator("input[name=filter]").fill("number<2")
        expect(page.locator("#count")).to_have_text("2 of 6 trials")
        page.locator("input[name=filter]").fill("")
        page.locator("input[type=range]").evaluate(
            "slider => { slider.value = 3; slider.dispatchEvent(new Event('input')) }"
        )
        expect(page.locator("#count")).to_have_text("0 of 0 trials")
        expect(page.locator("#moment")).to_contain_text("event 3 of")
        page.get_by_role("button", name="Now").click()
        expect(page.locator("#count")).to_have_text("6 of 6 trials")
        page.locator(".line").first.click()
        expect(page.locator("h1")).to_contain_text("Trial ")
        page.set_viewport_size({"width": 380, "height": 780})
        at(seen, "overview")
        expect(page.locator("#progress")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        expect(page.locator("button[name=stop]")).to_be_disabled()  # there is nobody to ask


def test_a_page_goes_on_after_a_kill_and_a_resume(bench: Bench, seen: Seen) -> None:
    experiment, port = begun(
        bench, seen, trial_command=bench.fake(steps=5, sleep=0.05), max_trial_number=8, trial_concurrency=2
    )
    page = seen.page
    experiment.until(lambda state: state.counts["SUCCEEDED"] >= 2)
    os.kill(experiment.pid, signal.SIGKILL)
    expect(page.locator("#notice")).to_contain_text(f"tune resume {experiment.id} --port {port}")
    with socket.create_server(("127.0.0.1", port)) as listening:
        experiment.pid = start(experiment.folder, actor="test", portal=Opening(listening, "another"))
    expect(page.locator("header .badge")).to_have_text("DONE")
    at(seen, "trials")
    expect(page.locator("#count")).to_have_text("8 of 8 trials")
    expect(page.locator(".line .SUCCEEDED")).to_have_count(8)
    experiment.finish()


HOSTILE = "<img src=x onerror=\"document.title='hit'\"></script><script>document.title='hit'</script>\u202e'\"`${1}"


def test_hostile_names_are_text(bench: Bench, seen: Seen) -> None:
    space = {
        HOSTILE: {"_type": "choice", "_value": [HOSTILE, "javascript:document.title='hit'"]},
        "x": {"_type": "uniform", "_value": [0, 1]},
    }
    script = bench.base / "trial.py"
    script.write_text(
        "import sys, tune\nparameters = tune.get_next_parameter()\n"
        f"print({HOSTILE!r}); print({HOSTILE!r}, file=sys.stderr)\n"
        "tune.report_intermediate_result(parameters['x'])\ntune.report_final_result(parameters['x'])\n"
        f"sys.exit({HOSTILE!r} if tune.get_sequence_id() == 3 else 0)\n"
    )
    experiment, _ = begun(
        bench,
        seen,
        experiment_name=HOSTILE,
        search_space=space,
        trial_command=f"python {script}",
        max_trial_number=400,
    )
    page = seen.page
    experiment.until(lambda state: len(state.made) > 6)
    for view in (
        *VIEWS,
        "trial/0",
        "trial/3",
        "figures/parallel",
        "figures/slice",
        "figures/importance",
        "figures/rank",
    ):
        at(seen, view)
        wanted = "#figure .main-svg" if view.startswith("figures") else VIEWS.get(view, "#output")
        expect(page.locator(wanted).first).to_be_visible()
        expect(page).not_to_have_title("hit")
    assert page.locator("img").count() == 0
    at(seen, "trial/0")
    expect(page.locator("#output")).to_contain_text("<img src=x")
    ended(experiment)


def test_without_the_link_there_is_nothing(bench: Bench, seen: Seen) -> None:
    experiment = bench.experiment(trial_command=bench.fake(steps=1), max_trial_number=1)
    experiment.run()
    with viewed(bench, experiment) as url:
        page = seen.page
        page.goto(url.partition("?")[0])
        assert "link that tune printed" in page.content()
        page.goto(url)
        expect(page.locator("#id")).to_have_text(experiment.id)
        assert "token" not in page.url and page.evaluate("document.cookie") == ""


@pytest.mark.parametrize("count", [10_000])
def test_ten_thousand_trials(bench: Bench, seen: Seen, count: int) -> None:
    experiment = bench.experiment(trial_command=bench.fake(steps=1), max_trial_number=1)
    experiment.run()
    many = [
        [
            n,
            f"t{n}",
            "SUCCEEDED",
            "",
            0,
            {"x": n / count},
            n / 3,
            n / 3,
            "local",
            None,
            0,
            None,
            None,
            None,
            3,
            n / 3,
            1,
            None,
        ]
        for n in range(count)
    ]
    with viewed(bench, experiment) as url:
        page = seen.page
        page.goto(url)
        expect(page.locator("#id")).to_have_text(experiment.id)
        page.evaluate(
            """async (rows) => {
                const { store } = await import('/static/store.js');
                for (const row of rows) store.trials.set(row.number, row);
            }""",
            [dict(zip(COLUMNS, row, strict=True)) for row in many],
        )
        at(seen, "trials")
        expect(page.locator("#count")).to_have_text(f"{count} of {count} trials")
        assert page.locator(".line").count() < 120  # only what can be seen is there
        page.get_by_role("columnheader", name="Result").click()
        page.get_by_role("columnheader", name="Result").click()
        expect(page.locator(".line").first).to_contain_text(str(count - 1))
        page.locator(".table").evaluate("table => { table.scrollTop = table.scrollHeight }")
        expect(page.locator(".line", has_text=re.compile("^0SUCCEEDED"))).to_be_visible()
