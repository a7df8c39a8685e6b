"""The pictures of docs/portal.md: a real little experiment, its portal, and a real Chromium that looks at it.

    python scripts/screenshots.py docs/pictures

Fonts and the trials' times are this machine's, so two runs don't give the same bytes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tune.engine import client, config, config_load, home
from tune.engine.requests import AskStop

MOST = 120_000  # bytes of a picture
WIDE, PHONE = {"width": 1000, "height": 680}, {"width": 390, "height": 780}
PATIENCE = 120.0  # seconds until something that must happen counts as not happening
TRIAL = """
import math, os, time
import tune
parameters = tune.get_next_parameter()
optimizer = parameters["optimizer"]
off = abs(math.log10(parameters["rate"]) + 2.2) + 0.4 * abs(parameters["dropout"] - 0.3)
off += 0.1 * (parameters["layers"] - 3) ** 2
off += 0.15 if optimizer["_name"] == "sgd" else abs(optimizer["beta"] - 0.9)
print("training with", parameters, flush=True)
for epoch in range(30):
    loss = 0.12 + 0.25 * off + 2.0 * math.exp(-epoch / (4 + 2 * off)) + 0.02 * math.sin(epoch * (1 + off))
    print(f"epoch {epoch:2d}  loss {loss:.4f}", flush=True)
    time.sleep(2 if epoch > 9 and os.path.exists("SLOW") else 0.02)
    tune.report_intermediate_result(REPORT)
tune.report_final_result(RESULT)
"""
SPACE = {
    "rate": {"_type": "loguniform", "_value": [1e-5, 1e-1]},
    "dropout": {"_type": "uniform", "_value": [0.0, 0.7]},
    "layers": {"_type": "randint", "_value": [1, 7]},
    "optimizer": {
        "_type": "choice",
        "_value": [
            {"_name": "sgd", "momentum": {"_type": "uniform", "_value": [0.0, 0.99]}},
            {"_name": "adam", "beta": {"_type": "uniform", "_value": [0.5, 0.999]}},
        ],
    },
}


def begin(base: Path, result: str, **fields: Any) -> tuple[home.Folder, str]:
    """A running experiment with a portal, and the link to that; when enough trials have ended they become slow."""
    code = Path(tempfile.mkdtemp(dir=base))
    slow = code.with_suffix(".slow")
    trial = TRIAL.replace("REPORT", result).replace("RESULT", result).replace("SLOW", str(slow))
    (code / "train.py").write_text(trial)
    given = {
        "search_space": SPACE,
        "trial_command": "exec python train.py",
        "trial_concurrency": 4,
        "max_trial_number": 60,
        "python": sys.executable,
        "seed": 4,
        **fields,
    }
    settings, _ = config_load.from_mapping(given, code)
    folder, _ = home.create()
    folder.config.write_bytes(config.encode(settings))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        opening = client.Opening(listening, "token")
        url = opening.url
        client.start(folder, actor="pictures", portal=opening)
    _until(folder, 36)
    slow.touch()
    return folder, url


def _until(folder: home.Folder, count: int) -> None:
    """Wait until so many trials have ended."""
    deadline = time.monotonic() + PATIENCE
    view = client.View(folder)
    try:
        while sum(1 for one in view.state.made if one.over) < count:
            if time.monotonic() > deadline or client.engine_pid(folder) is None:
                raise SystemExit(f"{folder.id} does not get on: {view.state.counts} {view.state.reason}")
            time.sleep(0.05)
            view.catch_up()
    finally:
        view.close()


def end(folder: home.Folder) -> None:
    """Stop the experiment, and wait until its engine has gone."""
    client.ask(folder, AskStop("pictures", True))
    deadline = time.monotonic() + PATIENCE
    while client.engine_pid(folder) is not None:
        if time.monotonic() > deadline:
            raise SystemExit(f"{folder.id} does not end")
        time.sleep(0.05)


class Camera:
    """A page of the browser, and where its pictures go."""

    def __init__(self, browser: Any, url: str, target: Path) -> None:
        self._target = target
        context = browser.new_context(viewport=WIDE, color_scheme="light")
        context.set_default_timeout(30_000)
        self.page = context.new_page()
        self.page.goto(url)
        self.page.locator("#progress").wait_for()

    def look(self, name: str, view: str, sign: str, theme: str = "light", *, phone: bool = False) -> None:
        """Go to a view, and take its picture when `sign` is there."""
        page = self.page
        page.set_viewport_size(PHONE if phone else WIDE)
        page.emulate_media(color_scheme=theme)
        page.evaluate("view => { location.hash = view }", view)
        page.locator(sign).first.wait_for()
        share = page.locator("select[name=share]")
        if share.count():
            share.select_option("20 %")  # a picture of many lines is large
        page.wait_for_timeout(1500)  # what moves comes to rest
        path = self._target / f"{name}.png"
        page.screenshot(path=path)
        if path.stat().st_size > MOST:
            raise SystemExit(f"{path} has {path.stat().st_size} bytes; allowed: {MOST}")
        sys.stdout.write(f"{path} {path.stat().st_size // 1000} kB\n")

    def back(self, share: float) -> None:
        """Go back to what it was after this share of the events."""
        self.page.locator("footer input").evaluate(
            "(slider, share) => { slider.value = share * slider.max; slider.dispatchEvent(new Event('input')) }", share
        )


def take(one: str, two: str, best: int, target: Path) -> None:
    """The pictures, of two portals by their links."""
    from playwright.sync_api import sync_playwright

    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        raise SystemExit("the pictures need Chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        camera = Camera(browser, one, target)
        camera.look("overview", "overview", "#progress")
        camera.look("trials", "trials", ".line", "dark")
        camera.look("trial", f"trial/{best}", "#output")
        camera.look("parallel", "figures/parallel", "#figure .main-svg", "dark")
        camera.look("contour", "figures/contour", "#figure .main-svg")
        camera.look("phone", "overview", "#progress", "dark", phone=True)
        camera.back(0.6)
        camera.look("past", "hosts", "#hosts .card", "dark")
        Camera(browser, two, target).look("pareto", "overview", "#card-best tbody")
        browser.close()


def main(target: Path) -> None:
    """Run the experiments and take the pictures."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as base, contextlib.ExitStack() as running:
        os.environ["TUNE_HOME"] = f"{base}/home"
        os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        one, first = begin(
            Path(base),
            "loss",
            experiment_name="dropout and rate",
            optimize_mode="minimize",
            tuner={"name": "TPE"},
            assessor={"name": "Medianstop"},
        )
        running.callback(end, one)
        two, second = begin(
            Path(base),
            '{"loss": loss, "size": 1000 * parameters["layers"] ** 2}',
            experiment_name="loss and size",
            objectives={"loss": "minimize", "size": "minimize"},
            tuner={"name": "NSGAII"},
        )
        running.callback(end, two)
        view = client.View(one)
        view.close()
        assert view.state.best is not None
        take(first, second, view.state.best.trial, target)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
