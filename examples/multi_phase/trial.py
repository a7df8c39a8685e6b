"""One multi-phase trial: a process that stays and tries one configuration after the other.

It prepares something once (here a small data set; elsewhere a large one, a model or a machine), and then asks for the
parameters of phase after phase, reporting a final result for each. `get_next_parameter` gives None when the
experiment has no further phase for this trial.
"""

import math
import random

import tune

PHASES = 5


def main() -> None:
    """Fit y = a * x + b to noisy points, one guess of (a, b) a phase."""
    draw = random.Random(tune.get_sequence_id())
    points = [(x / 50, 2 * x / 50 - 1 + draw.gauss(0, 0.05)) for x in range(50)]
    for _ in range(PHASES):
        parameters = tune.get_next_parameter()
        if parameters is None:
            break
        a, b = parameters.get("a", 1.0), parameters.get("b", 0.0)  # the defaults: run by hand
        error = math.fsum((a * x + b - y) ** 2 for x, y in points) / len(points)
        tune.report_intermediate_result(error)
        tune.report_final_result(error)


if __name__ == "__main__":
    main()
