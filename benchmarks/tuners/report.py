"""The tables of the tuner benchmark, from the CSV files of runs.

For each number of evaluations: the mean rank over the problems, the mean normalised regret (clipped at 2) and its
geometric mean, with 95 % intervals of a bootstrap over problems and seeds; and milliseconds per ask and tell.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

WORST = 2.0  # regrets are clipped here: losing badly on one problem counts once
Key = tuple[str, int]  # tuner, evaluations


class Results:
    """All runs of some files: for each tuner and number of evaluations, regrets and seconds by problem."""

    def __init__(self, files: list[Path], parallel: int = 1) -> None:
        self.regrets: dict[Key, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.seconds: dict[Key, list[float]] = defaultdict(list)
        self.groups: dict[str, str] = {}
        for path in files:
            with path.open(newline="") as file:
                for row in csv.DictReader(file):
                    if int(row.get("parallel") or 1) != parallel:
                        continue
                    key = row["peer"], int(row["n"])
                    self.regrets[key][row["problem"]].append(min(float(row["nreg"]), WORST))
                    self.seconds[key].append(float(row["ask_s"]) + float(row["tell_s"]))
                    self.groups[row["problem"]] = row["group"]

    def tuners(self, at: int) -> list[str]:
        """Who has results at so many evaluations."""
        return sorted(tuner for tuner, n in self.regrets if n == at)


def tables(results: Results, at: list[int], problems: list[str], versus: list[str], rounds: int) -> str:
    """The whole report: a table for each number of evaluations, and differences to those in `versus`."""
    parts: list[str] = []
    for n in at:
        listed = [p for p in problems if p in results.groups]
        whole = [t for t in results.tuners(n) if all(p in results.regrets[t, n] for p in listed)]
        partial = [t for t in results.tuners(n) if t not in whole and any(p in results.regrets[t, n] for p in listed)]
        if not whole or not listed:
            parts.append(f"at {n} evaluations: no tuner has results for all problems")
            continue
        parts.append(f"\nat {n} evaluations, {len(listed)} problems")
        parts.append(_table(results, n, whole, listed, rounds))
        if partial:
            have = {t: [p for p in listed if p in results.regrets[t, n]] for t in partial}
            parts.append("not on all problems: " + ", ".join(f"{t} ({len(have[t])})" for t in partial))
        parts += [_differences(results, n, one, whole, listed, rounds) for one in versus if one in whole]
    return "\n".join(parts)


def _table(results: Results, n: int, tuners: list[str], problems: list[str], rounds: int) -> str:
    cells = [[np.array(results.regrets[t, n][p]) for p in problems] for t in tuners]
    generator = np.random.default_rng(0)
    middle = _statistics(np.array([[c.mean() for c in row] for row in cells]))
    drawn: list[Any] = []
    for _ in range(rounds):
        chosen = generator.integers(len(problems), size=len(problems))
        means = [[row[p][generator.integers(len(row[p]), size=len(row[p]))].mean() for p in chosen] for row in cells]
        drawn.append(_statistics(np.array(means)))
    low, high = np.percentile(np.array(drawn), (2.5, 97.5), axis=0)
    header = ["tuner", "mean rank [95 %]", "mean regret [95 %]", "geometric", "ms per ask", "seeds"]
    lines: list[list[str]] = []
    for i in np.argsort(middle[0], kind="stable").tolist():
        spans = [f"{middle[k][i]:.3f} [{low[k][i]:.3f}, {high[k][i]:.3f}]" for k in range(2)]
        each = 1e3 * float(np.mean(results.seconds[tuners[i], n])) / n
        seeds = min(len(c) for c in cells[i])
        lines.append([tuners[i], *spans, f"{middle[2][i]:.4f}", f"{each:.3f}", str(seeds)])
    return _aligned([header, *lines])


def _statistics(means: Any) -> Any:
    """Mean rank, mean and geometric mean (3 x tuners) of mean regrets (tuners x problems)."""
    rounded = np.round(means, 9)
    below = (rounded[None, :, :] < rounded[:, None, :]).sum(axis=1)
    equal = (rounded[None, :, :] == rounded[:, None, :]).sum(axis=1)
    ranks = below + (equal + 1) / 2
    return np.array([ranks.mean(1), means.mean(1), 10 ** np.log10(means + 1e-3).mean(1)])


def _differences(results: Results, n: int, base: str, tuners: list[str], problems: list[str], rounds: int) -> str:
    generator = np.random.default_rng(0)
    lines = [f"difference of mean regret to {base} at {n} (negative: better than {base}), 95 % over problems"]
    rows: list[list[str]] = []
    for tuner in tuners:
        if tuner == base:
            continue
        pairs = [(results.regrets[tuner, n][p], results.regrets[base, n][p]) for p in problems]
        gaps = np.array([np.mean(ours) - np.mean(theirs) for ours, theirs in pairs])
        means = gaps[generator.integers(len(gaps), size=(2 * rounds, len(gaps)))].mean(1)
        low, high = np.percentile(means, (2.5, 97.5))
        better, worse = int((gaps < -1e-9).sum()), int((gaps > 1e-9).sum())
        rows.append([tuner, f"{gaps.mean():+.3f} [{low:+.3f}, {high:+.3f}]", f"better on {better}, worse on {worse}"])
    return "\n".join([*lines, _aligned(rows)]) if rows else ""


def by_problem(results: Results, n: int) -> str:
    """The mean regret of each tuner on each problem."""
    tuners = results.tuners(n)
    rows = [["problem", *tuners]]
    for problem in sorted(results.groups):
        means = [results.regrets[t, n].get(problem) for t in tuners]
        rows.append([problem, *(f"{np.mean(one):.3f}" if one else "-" for one in means)])
    return _aligned(rows)


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
