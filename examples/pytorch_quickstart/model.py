"""One trial of the PyTorch quickstart: its model on FashionMNIST, with `features`, `lr` and `momentum` to be tuned.

The model and the training loop are those of PyTorch's official quickstart (Build the Neural Network, Optimizing the
Model Parameters), as NNI's quickstart tunes them. FashionMNIST (Xiao, Rasul and Vollgraf, arXiv:1708.07747) is read
from its four idx files in `data/FashionMNIST/raw`, gzipped or not; where they are missing and torchvision is
installed, that downloads them. `--fake-data` takes scikit-learn's bundled digits instead, enlarged to 28 x 28.
"""

import argparse
import gzip
import struct
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import tune

DEFAULTS = {"features": 512, "lr": 0.001, "momentum": 0.0}
BATCH_SIZE = 64
HERE = Path(__file__).resolve().parent


class NeuralNetwork(nn.Module):
    """Images (batch, 28, 28) in 0..1 to logits (batch, 10), through two hidden layers of `features` units."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.linear_relu_stack = nn.Sequential(
            nn.Linear(28 * 28, features),
            nn.ReLU(),
            nn.Linear(features, features),
            nn.ReLU(),
            nn.Linear(features, 10),
        )

    def forward(self, images: Tensor) -> Tensor:
        """The logits."""
        return self.linear_relu_stack(self.flatten(images))


def read_idx(path: Path) -> Tensor:
    """An idx file as LeCun's MNIST page describes it: two zero bytes, type 8 (unsigned byte), rank, sizes, data.

    `path` without `.gz`; the gzipped file is read where there is no plain one. Raises `ValueError` for another format
    and `FileNotFoundError`.
    """
    packed = path.with_name(path.name + ".gz")
    data = gzip.decompress(packed.read_bytes()) if packed.exists() and not path.exists() else path.read_bytes()
    zeros, kind, rank = struct.unpack_from(">HBB", data)
    if zeros or kind != 8:
        raise ValueError(f"{path} is no idx file of unsigned bytes")
    shape = struct.unpack_from(f">{rank}I", data, 4)
    values = torch.frombuffer(bytearray(data), dtype=torch.uint8, offset=4 + 4 * rank)
    return values.reshape(shape)


def fashion_mnist(root: Path) -> tuple[TensorDataset, TensorDataset]:
    """Training and test set: images (n, 28, 28) in 0..1 and labels (n,)."""
    raw = root / "FashionMNIST" / "raw"
    names = [f"{part}-{what}" for part in ("train", "t10k") for what in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    if not all((raw / name).exists() or (raw / f"{name}.gz").exists() for name in names):
        try:
            from torchvision.datasets import FashionMNIST
        except ImportError:
            raise SystemExit(
                f"FashionMNIST is not in {raw}: put its four idx files there, install torchvision, or use --fake-data"
            ) from None
        FashionMNIST(root=str(root), download=True)
        FashionMNIST(root=str(root), train=False, download=True)
    train_images, train_labels, test_images, test_labels = (read_idx(raw / name) for name in names)
    return (
        TensorDataset(train_images.float() / 255, train_labels.long()),
        TensorDataset(test_images.float() / 255, test_labels.long()),
    )


def digits() -> tuple[TensorDataset, TensorDataset]:
    """Scikit-learn's bundled digits in the shape of FashionMNIST."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    small = torch.tensor(images / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    large = nn.functional.interpolate(small, size=(28, 28), mode="bilinear").squeeze(1)
    classes = torch.tensor(labels, dtype=torch.int64)
    order = torch.randperm(len(classes), generator=torch.Generator().manual_seed(0))
    train, test = order[:1440], order[1440:]
    return TensorDataset(large[train], classes[train]), TensorDataset(large[test], classes[test])


def train(batches: DataLoader, model: nn.Module, loss_function: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """One epoch."""
    model.train()
    for images, labels in batches:
        loss = loss_function(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def accuracy(batches: DataLoader, model: nn.Module) -> float:
    """The share of images that are classified right, 0..1."""
    model.eval()
    right = sum((model(images).argmax(1) == labels).sum().item() for images, labels in batches)
    return right / len(batches.dataset)


def main() -> None:
    """Take parameters, train, report."""
    parser = argparse.ArgumentParser(description="One trial of the PyTorch quickstart.")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--data", type=Path, default=HERE / "data", help="folder with FashionMNIST/raw")
    parser.add_argument("--fake-data", action="store_true", help="scikit-learn's digits instead of FashionMNIST")
    arguments = parser.parse_args()

    parameters = {**DEFAULTS, **tune.get_next_parameter()}

    torch.manual_seed(0)
    torch.set_num_threads(1)
    training_data, test_data = digits() if arguments.fake_data else fashion_mnist(arguments.data)
    train_batches = DataLoader(training_data, batch_size=BATCH_SIZE, shuffle=True)
    test_batches = DataLoader(test_data, batch_size=1000)

    model = NeuralNetwork(parameters["features"])
    optimizer = torch.optim.SGD(model.parameters(), lr=parameters["lr"], momentum=parameters["momentum"])
    result = 0.0
    for _ in range(arguments.epochs):
        train(train_batches, model, nn.CrossEntropyLoss(), optimizer)
        result = accuracy(test_batches, model)
        tune.report_intermediate_result(result)
    tune.report_final_result(result)


if __name__ == "__main__":
    main()
