"""What the tuners are compared on: functions to minimise, generated, in two suites that share no problem.

* `public`, to develop with: 12 functions of BBOB (through the package `ioh`; left out without it), 8 mixed ones
  (categorical, conditional, integer, noisy) and 6 measured grids of scikit-learn models (grids.py).
* `check`, to look at last: others of each kind. A rule that gains on `public` only is fitted to it.
* `core`: 10 of `public`, for slow peers. `conditional`, `large` (20 to 40 parameters): for one question each.

A score is regret over the median regret of the best of 50 random points: `references.json`, made by
`python problems.py`.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grids
import numpy as np
from parameters import Parameter, Parameters, cat, floats, pruned, sample

if TYPE_CHECKING:
    from collections.abc import Callable

    Configuration = dict[str, Any]
    Function = Callable[[Configuration], float]

REFERENCES = Path(__file__).with_name("references.json")
KNOWN: dict[str, dict[str, float]] = json.loads(REFERENCES.read_text()) if REFERENCES.exists() else {}


@dataclass(frozen=True)
class Problem:
    """A function over a space. `noise`: the standard deviation of what a tuner is told; `optimum`: None if unknown."""

    name: str
    group: str
    space: Parameters
    function: Function
    noise: float = 0.0
    optimum: Callable[[], float] | None = None

    def true(self, configuration: Configuration) -> float:
        """The value without noise; inactive parameters don't count."""
        return float(self.function(pruned(self.space, configuration)))

    def normalised(self, value: float) -> float:
        """Its regret: 0 at the optimum, 1 at the median best of 50 random points."""
        known = KNOWN[self.name]
        return max(value - known["optimum"], 0.0) / max(known["random50"] - known["optimum"], 1e-12)


def bbob(number: int, dimension: int, instance: int = 1) -> Problem:
    """A function of the Black-Box Optimization Benchmark (Hansen et al., INRIA RR-6829, 2009) in [-5, 5]^d."""

    @functools.cache
    def made() -> Any:
        import ioh

        return ioh.get_problem(number, instance=instance, dimension=dimension, problem_class=ioh.ProblemClass.BBOB)

    def function(c: Configuration) -> float:
        return made()([c[f"x{i}"] for i in range(dimension)])

    name = f"bbob_f{number}_d{dimension}_i{instance}"
    return Problem(name, "bbob", floats(dimension, -5.0, 5.0), function, optimum=lambda: float(made().optimum.y))


HEIGHTS = np.array([1.0, 1.2, 3.0, 3.2])
WIDTHS = np.array(
    [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
)
PEAKS = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


def noisy_hartmann(noise: float, shift: int) -> Problem:
    """Hartmann's function of six parameters, observed with noise."""

    def function(c: Configuration) -> float:
        x = np.array([c[f"x{(i + shift) % 6}"] for i in range(6)])
        return -float(HEIGHTS @ np.exp(-(WIDTHS * (x - PEAKS) ** 2).sum(axis=1)))

    name = f"mix_noisy_hartmann6_s{noise:g}_{shift}"
    return Problem(name, "mixed", floats(6, 0.0, 1.0), function, noise, lambda: -3.322368011)


def _rosenbrock(x: float, y: float) -> float:
    return 100 * (y - x * x) ** 2 + (1 - x) ** 2


def _camel(x: float, y: float) -> float:
    return (4 - 2.1 * x * x + x**4 / 3) * x * x + x * y + (-4 + 4 * y * y) * y * y


def _beale(x: float, y: float) -> float:
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y * y) ** 2 + (2.625 - x + x * y**3) ** 2


def three_choices(shift: int) -> Problem:
    """Categories choose which functions of two numbers are added: the idea of Func3C (Ru et al., CoCaBO, ICML 2020)."""

    def function(c: Configuration) -> float:
        x, y = c["x"], c["y"]
        hills = _rosenbrock(x, y), _camel(x, y), _beale(x, y)
        first = (int(c["h1"][1:]) + shift) % 3
        total = hills[first] / (300, 10, 50)[first]
        total += (0, hills[0] / 300, hills[1] / 10, hills[2] / 50, 1)[(int(c["h2"][1:]) + shift) % 5]
        return total + (hills[1] / 2, hills[0] / 150, hills[2] / 50, 0.5)[(int(c["h3"][1:]) + shift) % 4]

    space = [
        cat("h1", *(f"a{i}" for i in range(3))),
        cat("h2", *(f"b{i}" for i in range(5))),
        cat("h3", *(f"c{i}" for i in range(4))),
        Parameter("x", "float", -1.5, 1.5),
        Parameter("y", "float", -1.5, 1.5),
    ]
    return Problem(f"mix_func3c_{shift}", "mixed", space, function)


def switches(binary: int, numeric: int, seed: int) -> Problem:
    """Ackley's function of switches and numbers."""
    draw = np.random.default_rng(seed)
    wanted, centre = draw.integers(0, 2, binary), draw.uniform(-0.6, 0.6, numeric)

    def function(c: Configuration) -> float:
        off = [0.8 * (int(c[f"b{i}"] == "on") != wanted[i]) for i in range(binary)]
        z = np.array(off + [c[f"x{i}"] - centre[i] for i in range(numeric)])
        waves = math.exp(float(np.mean(np.cos(2 * math.pi * z))))
        return 20 + math.e - 20 * math.exp(-0.2 * math.sqrt(float(np.mean(z * z)))) - waves

    space = [cat(f"b{i}", "off", "on") for i in range(binary)] + floats(numeric, -1.0, 1.0)
    return Problem(f"mix_ackley_b{binary}c{numeric}_{seed}", "mixed", space, function, optimum=lambda: 0.0)


def optimizers(seed: int) -> Problem:
    """A choice of four optimisers that have different parameters."""
    names = ("sgd", "adam", "rms", "lbfgs")
    draw = np.random.default_rng(seed)
    best = {name: draw.uniform(0.15, 0.85, 4) for name in names}
    base = dict(zip(draw.permutation(list(names)), (0.0, 0.04, 0.15, 0.3), strict=True))

    def place(value: float, low: float, high: float) -> float:
        return math.log(value / low) / math.log(high / low)

    def function(c: Configuration) -> float:
        kind = c["opt"]
        goal = best[kind]
        loss = base[kind] + (place(c["wd"], 1e-6, 0.1) - goal[3]) ** 2
        if kind == "lbfgs":
            return loss + 1.5 * abs(c["hist"] / 50 - goal[0])
        rate = place(c["lr"], 1e-5, 1.0) - goal[0]
        loss += 4 * rate**2
        if kind == "sgd":
            return loss + 0.3 * (c["nesterov"] == "no") + 3 * (c["mom"] - goal[1] + 0.5 * rate) ** 2
        if kind == "adam":
            return loss + 2 * (c["b1"] - goal[1]) ** 2 + (place(c["b2c"], 1e-4, 0.3) - goal[2]) ** 2
        return loss + 2 * (c["rho"] - goal[1]) ** 2

    space = [
        cat("opt", *names),
        Parameter("wd", "float", 1e-6, 0.1, log=True),
        Parameter("lr", "float", 1e-5, 1.0, log=True, parent=("opt", names[:3])),
        Parameter("mom", "float", parent=("opt", ("sgd",))),
        cat("nesterov", "yes", "no", parent=("opt", ("sgd",))),
        Parameter("b1", "float", parent=("opt", ("adam",))),
        Parameter("b2c", "float", 1e-4, 0.3, log=True, parent=("opt", ("adam",))),
        Parameter("rho", "float", parent=("opt", ("rms",))),
        Parameter("hist", "int", 1, 50, parent=("opt", ("lbfgs",))),
    ]
    return Problem(f"mix_condtree_{seed}", "mixed", space, function)


def loci(count: int, neighbours: int, alleles: int, seed: int) -> Problem:
    """An NK landscape (Kauffman 1993) of categorical loci that depend on their neighbours."""
    losses = np.random.default_rng(seed).random((count,) + (alleles,) * (neighbours + 1)) ** 2

    def total(genes: Any) -> Any:
        parts = (losses[(i, *(genes[(i + j) % count] for j in range(neighbours + 1)))] for i in range(count))
        return sum(parts) / count

    def function(c: Configuration) -> float:
        return float(total([int(c[f"g{i}"][1:]) for i in range(count)]))

    def optimum() -> float:
        return float(total(np.indices((alleles,) * count).reshape(count, -1)).min())

    space = [cat(f"g{i}", *(f"o{j}" for j in range(alleles))) for i in range(count)]
    return Problem(f"mix_nk_n{count}k{neighbours}a{alleles}_{seed}", "mixed", space, function, optimum=optimum)


def network(seed: int, noise: float) -> Problem:
    """A make-believe network: rate, decay, depth, width, activation, and a cliff beyond which training diverges."""
    draw = np.random.default_rng(seed)
    goal = draw.uniform(0.3, 0.7, 4)
    activations = ("relu", "tanh", "gelu", "silu")
    worse = dict(zip(activations, draw.permutation([0.0, 0.02, 0.05, 0.12]), strict=True))

    def function(c: Configuration) -> float:
        rate, decay = (math.log10(c["lr"]) + 6) / 6, (math.log10(c["wd"]) + 8) / 7
        depth, width = (c["depth"] - 1) / 11, math.log2(c["width"] / 8) / 7
        if rate > 0.92 - 0.25 * depth:
            return 1.0
        off = rate - (goal[0] + 0.2 * (0.5 - depth))
        loss = worse[c["act"]] + 1.2 * off**2 * (2 if rate > goal[0] else 1) + 0.3 * (decay - goal[1]) ** 2
        loss += 0.25 * (depth - goal[2]) ** 2 + 0.2 * (width - goal[3]) ** 2
        loss += 0.1 * abs(rate - goal[0]) * abs(width - goal[3])
        return min(0.05 + loss, 0.9 + 0.1 * rate)

    space = [
        Parameter("lr", "float", 1e-6, 1.0, log=True),
        Parameter("wd", "float", 1e-8, 0.1, log=True),
        Parameter("depth", "int", 1, 12),
        Parameter("width", "int", 8, 1024, log=True),
        cat("act", *activations),
    ]
    return Problem(f"mix_hpoplateau_{seed}_n{noise:g}", "mixed", space, function, noise)


def integer_valley(dimension: int, values: int, seed: int) -> Problem:
    """Rosenbrock's valley, half of whose parameters are integers."""
    centre = np.random.default_rng(seed).integers(1, values - 2, dimension)
    half = dimension // 2

    def function(c: Configuration) -> float:
        z = [(c[f"i{i}"] - centre[i]) / (values / 4) + 1 for i in range(half)]
        z = np.array(z + [c[f"x{i}"] + 1 for i in range(dimension - half)])
        return float((20 * (z[1:] - z[:-1] ** 2) ** 2 + (1 - z[:-1]) ** 2).sum())

    space = [Parameter(f"i{i}", "int", 0, values - 1) for i in range(half)] + floats(dimension - half, -2.0, 2.0)
    name = f"mix_introsen_d{dimension}m{values}_{seed}"
    return Problem(name, "mixed", space, function, optimum=lambda: 0.0)


def hidden_branin(seed: int) -> Problem:
    """Branin's function of two of six parameters, three of them on a log scale."""
    first, second = np.random.default_rng(seed).permutation(6)[:2]

    def function(c: Configuration) -> float:
        u = [(math.log10(c[f"p{i}"]) + 4) / 6 for i in range(3)] + [c[f"p{i}"] for i in range(3, 6)]
        x, y = 15 * u[first] - 5, 15 * u[second]
        bowl = y - 5.1 / (4 * math.pi**2) * x * x + 5 / math.pi * x - 6
        return bowl**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10

    space = [Parameter(f"p{i}", "float", 1e-4, 1e2, log=True) for i in range(3)]
    space += [Parameter(f"p{i}", "float") for i in range(3, 6)]
    return Problem(f"mix_logbranin_{seed}", "mixed", space, function, optimum=lambda: 0.39788735773)


def measured(name: str) -> Problem:
    """A real task on its grid."""
    losses = functools.cache(lambda: grids.table(name))
    axes = grids.TASKS[name].axes

    def function(c: Configuration) -> float:
        return grids.interpolate(losses(), axes, c)

    space = [parameter for parameter, _ in axes]
    return Problem(f"real_{name}", "real", space, function, optimum=lambda: float(losses().min()))


def public() -> list[Problem]:
    """The problems to develop with."""
    plain = ((8, 2), (3, 2), (17, 2), (21, 2), (1, 5), (6, 5), (13, 5), (20, 5), (2, 10), (10, 10), (15, 10), (24, 10))
    mixed = [noisy_hartmann(0.1, 0), three_choices(0), switches(5, 3, 0), optimizers(0), loci(8, 2, 4, 0)]
    mixed += [network(0, 0.01), integer_valley(4, 16, 0), hidden_branin(0)]
    real = ("svm_wine", "gb_diabetes", "mlp_digits", "rf_cancer", "svm_digits", "kr_diabetes")
    return [bbob(*one) for one in plain] + mixed + [measured(one) for one in real]


def check() -> list[Problem]:
    """The problems to look at last."""
    plain = ((7, 2), (19, 2), (14, 2), (9, 5), (4, 5), (16, 5), (22, 5), (11, 5), (12, 10), (18, 10), (5, 10), (23, 3))
    mixed = [noisy_hartmann(0.3, 2), three_choices(1), switches(3, 6, 1), optimizers(1), optimizers(3)]
    mixed += [loci(10, 3, 3, 1), network(1, 0.03), integer_valley(6, 12, 1), hidden_branin(2)]
    real = ("svm_cancer", "mlp_wine", "rf_iris")
    return [bbob(*one, 2) for one in plain] + mixed + [measured(one) for one in real]


def large() -> list[Problem]:
    """Many parameters."""
    return [bbob(1, 20), bbob(10, 20), bbob(15, 20), bbob(8, 40), switches(20, 10, 2), integer_valley(20, 16, 2)]


def suite(name: str) -> list[Problem]:
    """The problems of a suite; without `ioh` those that need it are left out."""
    core = ("bbob_f8_d2", "bbob_f6_d5", "bbob_f20_d5", "bbob_f15_d10", "mix_noisy", "mix_condtree", "mix_func3c")
    core += ("mix_hpoplateau", "real_svm_wine", "real_gb_diabetes")
    suites: dict[str, Callable[[], list[Problem]]] = {
        "public": public,
        "check": check,
        "large": large,
        "core": lambda: [one for one in public() if one.name.startswith(core)],
        "conditional": lambda: (
            [optimizers(seed) for seed in (0, 1, 3)] + [measured("svm_wine"), measured("kr_diabetes")]
        ),
    }
    if name not in suites:
        raise SystemExit(f"suite is {name!r}; allowed: {', '.join(suites)}")
    installed = importlib.util.find_spec("ioh") is not None
    return [one for one in suites[name]() if installed or one.group != "bbob"]


def reference(problem: Problem, rounds: int = 200, points: int = 50) -> dict[str, float]:
    """The median best of 50 random points, and the optimum: exact where it is known, else searched for long."""
    generator = np.random.default_rng(12345)
    draws = [[problem.true(sample(problem.space, generator)) for _ in range(points)] for _ in range(rounds)]
    best = [min(values) for values in draws]
    optimum = problem.optimum() if problem.optimum else min(*best, _searched(problem, generator))
    return {"random50": float(np.median(best)), "optimum": optimum}


def _searched(problem: Problem, generator: np.random.Generator) -> float:
    """The best of Nelder and Mead's method from good starts, for every combination of the categories."""
    from scipy.optimize import minimize

    categories = [parameter for parameter in problem.space if parameter.kind == "cat"]
    numbers = [parameter for parameter in problem.space if parameter.kind != "cat"]
    best = math.inf
    for values in itertools.product(*(parameter.choices for parameter in categories)):
        fixed = {parameter.name: value for parameter, value in zip(categories, values, strict=True)}

        def loss(u: Any, fixed: Configuration = fixed) -> float:
            places = zip(numbers, np.clip(u, 0.0, 1.0), strict=True)
            return problem.true({**fixed, **{parameter.name: parameter.from_unit(float(x)) for parameter, x in places}})

        starts = sorted((generator.random(len(numbers)) for _ in range(150)), key=loss)[:2]
        options = {"maxiter": 1500, "xatol": 1e-6, "fatol": 1e-10}
        best = min(best, *(float(minimize(loss, start, method="Nelder-Mead", options=options).fun) for start in starts))
    return best


def main() -> None:
    """Make the references that are missing."""
    for problem in [*public(), *check(), *large()]:
        if problem.name not in KNOWN:
            KNOWN[problem.name] = reference(problem)
            print(problem.name, KNOWN[problem.name], flush=True)
            REFERENCES.write_text(json.dumps(KNOWN, indent=1) + "\n")


if __name__ == "__main__":
    main()
