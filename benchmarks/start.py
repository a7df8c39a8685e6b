"""From `tune create` to the first trial holding its parameters, beside three bare interpreters one after the other.

The limit is three because the command, the engine and the trial each are a Python that can't start before the one
before it; each imports what the SDK imports.

    python benchmarks/start.py [rounds]
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from side_by_side import IMPORTS, folder, line, medians

TRIAL = """
import time
import tune
tune.get_next_parameter()
with open("held.new", "w") as file:
    file.write(str(time.time()))
import os
os.rename("held.new", "held")
tune.report_final_result(1)
"""
CONFIG = """
trial_command = "exec python trial.py"
max_trial_number = 1
seed = 1
[search_space]
x = {{ _type = "uniform", _value = [0, 1] }}
[tuner]
name = "{tuner}"
"""


def main(rounds: int) -> None:
    """Measure and print."""
    with folder() as base:
        os.environ["TUNE_HOME"] = str(base / "home")
        os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        program = Path(sys.executable).with_name("tune")
        (base / "trial.py").write_text(TRIAL)
        held = base / "held"

        def create(tuner: str) -> float:
            config = base / f"{tuner}.toml"
            config.write_text(CONFIG.format(tuner=tuner))
            begin = time.time()
            subprocess.run([program, "create", config], check=True, capture_output=True)
            taken = float(held.read_text()) - begin
            held.unlink()
            return taken

        def interpreters() -> float:
            begin = time.perf_counter()
            for _ in range(3):
                subprocess.run([sys.executable, "-c", IMPORTS], check=True)
            return time.perf_counter() - begin

        found = medians(
            {"Random": lambda: create("Random"), "TPE": lambda: create("TPE"), "limit": interpreters}, rounds
        )
    for tuner in ("Random", "TPE"):
        limit = f"three interpreters in a row: {found['limit']:.2f} s"
        ratio = found[tuner] / found["limit"]
        line(f"create to first parameters ({tuner})", f"{found[tuner]:.2f} s", limit, ratio, "<= 0.8 s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
