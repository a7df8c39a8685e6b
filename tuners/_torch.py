"""What the tuners that use PyTorch share: one thread, so that the same sums give the same bits."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


@contextmanager
def one_thread() -> Generator[None]:
    """Let torch work with one thread inside the block; a number of threads is a setting of the whole process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def weights(rows: int, columns: int, generator: np.random.Generator, gain: float = 1.0) -> torch.Tensor:
    """Initial weights (rows x columns) of a layer, uniform, scaled as by Glorot and Bengio (AISTATS 2010)."""
    bound = gain * (6.0 / (rows + columns)) ** 0.5
    return tensor(generator.uniform(-bound, bound, (rows, columns))).requires_grad_()


def learn(optimizer: Any, loss: Any, parameters: list[torch.Tensor], norm: float = math.inf) -> None:
    """One step down the slope of the loss, its gradient cut to this length at most."""
    optimizer.zero_grad()
    loss.backward()
    if norm < math.inf:
        torch.nn.utils.clip_grad_norm_(parameters, norm)
    optimizer.step()


def numbers(values: NDArray[np.intp]) -> torch.Tensor:
    """The same integers in torch."""
    return torch.from_numpy(np.ascontiguousarray(values))  # pyright: ignore[reportUnknownMemberType]  # typed in part


def eigenvectors(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The eigenvalues (m), ascending, and eigenvectors (m x m, as columns) of a symmetric matrix."""
    untyped: Any = torch.linalg
    values, vectors = untyped.eigh(matrix)
    return values, vectors


def tensor(values: NDArray[np.float64]) -> torch.Tensor:
    """The same numbers as doubles of torch."""
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64))  # pyright: ignore[reportUnknownMemberType]  # typed in part
