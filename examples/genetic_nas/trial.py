"""One architecture of the genetic search: built from its layers, given its parent's weights where they fit, trained.

A layer that the parent has too takes over the block of weights that both have room for. A new layer begins as the
identity, so that the network computes at first what its parent did (Chen et al., Net2Net, 2016). Weights lie in the
trial's own folder, beside those of all other trials.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: trials side by side must not fight for the cores

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import tune

DEFAULTS = {"layers": [{"name": "a", "width": 32, "activation": "relu"}], "inherit": None}  # run by hand
LEARNING_RATE, MOMENTUM, BATCH = 0.05, 0.9, 64


def built(layers, saved, draw):
    """The weights of each layer and of the output, `(name, matrix, bias)`, inherited as far as possible."""
    found, wide = [], 64
    for name, narrow in [*((layer["name"], layer["width"]) for layer in layers), ("output", 10)]:
        limit = np.sqrt(6 / (wide + narrow))
        matrix, bias = draw.uniform(-limit, limit, (wide, narrow)), np.zeros(narrow)
        if f"{name}/matrix" in saved:
            old = saved[f"{name}/matrix"]
            rows, columns = min(wide, old.shape[0]), min(narrow, old.shape[1])
            matrix[:rows, :columns] = old[:rows, :columns]
            bias[:columns] = saved[f"{name}/bias"][:columns]
        elif saved:
            matrix = 0.01 * matrix + np.eye(wide, narrow)
        found.append((name, matrix, bias))
        wide = narrow
    return found


def forward(network, layers, images):
    """The values after each layer; the last ones are the probabilities of the classes."""
    values = [images]
    for layer, (_, matrix, bias) in zip([*layers, None], network, strict=True):
        scores = values[-1] @ matrix + bias
        if layer is None:
            scores = np.exp(scores - scores.max(axis=1, keepdims=True))
            values.append(scores / scores.sum(axis=1, keepdims=True))
        else:
            values.append(np.maximum(scores, 0) if layer["activation"] == "relu" else np.tanh(scores))
    return values


def train(network, layers, images, labels, order):
    """One epoch of stochastic gradient descent with momentum."""
    speed = [(np.zeros_like(matrix), np.zeros_like(bias)) for _, matrix, bias in network]
    for batch in np.array_split(order, len(order) // BATCH):
        values = forward(network, layers, images[batch])
        back = values[-1].copy()
        back[np.arange(len(batch)), labels[batch]] -= 1
        back /= len(batch)
        for index in range(len(network) - 1, -1, -1):
            _, matrix, bias = network[index]
            gradients = (values[index].T @ back, back.sum(axis=0))
            if index:
                slope = values[index] > 0 if layers[index - 1]["activation"] == "relu" else 1 - values[index] ** 2
                back = (back @ matrix.T) * slope
            for weight, fast, gradient in zip((matrix, bias), speed[index], gradients, strict=True):
                fast *= MOMENTUM
                fast -= LEARNING_RATE * gradient
                weight += fast


def main() -> None:
    """Inherit, train, save, report: in this order."""
    parser = argparse.ArgumentParser(description="One architecture on the bundled digits.")
    parser.add_argument("--epochs", type=int, default=2)
    epochs = parser.parse_args().epochs
    parameters = {**DEFAULTS, **tune.get_next_parameter()}
    layers, own = parameters["layers"], Path(tune.get_output_dir())

    saved = {}
    if parameters["inherit"] is not None:
        with np.load(own.parent / parameters["inherit"] / "weights.npz") as file:
            saved = dict(file)
    images, labels = load_digits(return_X_y=True)
    split = train_test_split(images / 16, labels, test_size=0.25, random_state=0, stratify=labels)
    train_images, test_images, train_labels, test_labels = split
    draw = np.random.default_rng(tune.get_sequence_id())
    network = built(layers, saved, draw)
    accuracy = 0.0
    for _ in range(epochs):
        train(network, layers, train_images, train_labels, draw.permutation(len(train_images)))
        accuracy = float((forward(network, layers, test_images)[-1].argmax(axis=1) == test_labels).mean())
        tune.report_intermediate_result(accuracy)

    if tune.get_trial_id() != "STANDALONE":
        named = {f"{name}/matrix": matrix for name, matrix, _ in network}
        np.savez(own / "weights.npz", **named, **{f"{name}/bias": bias for name, _, bias in network})
    tune.report_final_result(accuracy)


if __name__ == "__main__":
    main()
