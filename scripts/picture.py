"""The picture of the terminal in the README: the live view of `tune create` on a real run of the quickstart, as SVG.

    python scripts/picture.py docs/terminal.svg

The experiment is started as `create` does it; when two trials are left, its live view is drawn into a recording
console. Fonts are left to the reader's machine.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from io import StringIO
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console

from tune.cli.follow import _styled, frame, trial_line
from tune.engine import client, config, config_load, home

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = 92
LEFT = 2  # trials that are still to end in the picture


def main(target: Path) -> None:
    """Run the quickstart and draw it."""
    with tempfile.TemporaryDirectory() as base:
        os.environ["TUNE_HOME"] = base
        os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        settings, _ = config_load.load(ROOT / "examples" / "digits" / "config.toml")
        folder, _ = home.create()
        folder.config.write_bytes(config.encode(settings))
        begin = time.monotonic()
        client.start(folder, actor="picture")
        view = client.View(folder)
        try:
            while view.state.counts["SUCCEEDED"] < 10 - LEFT:
                time.sleep(0.05)
                view.catch_up()
            state = view.state
            ended = sorted((one for one in state.made if one.over), key=lambda one: one.ended_us)
            results = [value for one in ended for phase in one.phases if (value := phase.value) is not None]
            lasted = round((time.monotonic() - begin) * 1e6)
            lines = frame(state, results, trial_line(state, ended[-1]), lasted, COLUMNS)
        finally:
            view.close()
            while client.engine_pid(folder) is not None:
                time.sleep(0.05)
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True, highlight=False)
    console.print("$ tune create examples/digits/config.toml")
    console.print(f"Experiment ID: {state.id}")
    console.print(_styled(lines))
    without_fonts = re.sub(r"@font-face \{\{.*?\n    \}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    target.write_text(console.export_svg(title="tune", code_format=without_fonts, unique_id="tune"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
