"""The source script's loop (doc-2), rebuilt from its description: what people start from.

MNIST as float 0 to 255, not normalised, through Gluon's `DataLoader`; a net that is not
hybridized; Xavier, Adam 0.01, batch 500; loss and accuracy read back after every batch. On the CPU
in place of `mx.gpu()`, with MXNet as it comes.
"""

from __future__ import annotations

import time

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon, init
from mxnet.gluon import nn

from benchmarks.cases import Case, Turn
from cnn_data import Split, load_dataset

CLASSES = 10


def build() -> nn.Sequential:
    """doc-2's LeNet, 44,426 parameters on 1×28×28."""
    net = nn.Sequential()
    net.add(
        nn.Conv2D(6, 5, activation="relu"),
        nn.MaxPool2D(2, 2),
        nn.Conv2D(16, 5, activation="relu"),
        nn.MaxPool2D(2, 2),
        nn.Dense(120, activation="relu"),
        nn.Dense(84, activation="relu"),
        nn.Dense(CLASSES),
    )
    net.initialize(init.Xavier())
    return net


def loader(split: Split, batch: int, shuffle: bool) -> gluon.data.DataLoader:
    images = split.images(np.arange(len(split))).astype(np.float32).transpose(0, 3, 1, 2)
    pairs = gluon.data.ArrayDataset(np.ascontiguousarray(images), split.labels)
    return gluon.data.DataLoader(pairs, batch, shuffle=shuffle)


def accuracy(net: nn.Sequential, batches: gluon.data.DataLoader) -> float:
    hits, count = 0.0, 0
    for x, y in batches:
        hits += (net(x).argmax(axis=1) == y.astype("float32")).sum().asscalar()
        count += y.size
    return hits / count


def train(train_split: Split, test_split: Split, batch: int, epochs: int) -> list[list[float]]:
    """[seconds of training so far, test accuracy] after each epoch; testing is not timed."""
    mx.random.seed(0)
    np.random.seed(0)  # what the loader shuffles with
    net, loss_of = build(), gluon.loss.SoftmaxCrossEntropyLoss()
    trainer = gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 0.01})
    train_batches = loader(train_split, batch, True)
    test_batches = loader(test_split, batch, False)
    spent, curve = 0.0, []
    for _ in range(epochs):
        start = time.perf_counter()
        loss_sum, hits = 0.0, 0.0
        for x, y in train_batches:
            with autograd.record():
                outputs = net(x)
                loss = loss_of(outputs, y).sum()
            loss.backward()
            trainer.step(x.shape[0])
            labels = y.astype("float32")
            loss_sum += loss.asscalar()
            hits += (outputs.argmax(axis=1) == labels).sum().asscalar()
        spent += time.perf_counter() - start
        curve.append([spent, accuracy(net, test_batches)])
    return curve


def begin(case: Case) -> Turn:
    """A case of this side, ready for its turns."""
    dataset = load_dataset("mnist", case.data_dir)
    return lambda _: {"curve": train(dataset.train, dataset.test, case.batch, case.epochs)}
