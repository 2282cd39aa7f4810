"""What a run is made of: the net and its objective, optimizer, batches, devices, workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mxnet as mx
from mxnet import gluon

from cnn_data import Batches, Dataset, pixels
from cnn_harness.config import TrainConfig
from cnn_harness.errors import CommandError
from cnn_harness.initial import Pretrained, initial_arrays
from cnn_harness.jobs.peers import Peers
from gluon_cnn.fast.padding import pad_channels
from gluon_cnn.models import ClassicCNN, get_model
from gluon_cnn.training import parallel
from gluon_cnn.training.average import Average
from gluon_cnn.training.devices import find_devices
from gluon_cnn.training.gradients import accumulate
from gluon_cnn.training.losses import loss_for
from gluon_cnn.training.pretrained import freeze, set_weights
from gluon_cnn.training.staging import Staging
from gluon_cnn.training.workers import ALONE, Alone

__all__ = [
    "EVALUATION_BATCH",
    "TOP",
    "Objective",
    "Training",
    "build_net",
    "class_ranks",
    "make_batches",
    "make_trainer",
    "prepare",
    "set_first_weights",
]

EVALUATION_BATCH = 256
TOP = 5  # the k of top-k accuracy


class Objective(gluon.HybridBlock):
    """Net, loss and metrics as one graph, so that a step is one call.

    (x, y) -> loss (N,), its sum (1,), the number of right answers (1,), predicted classes (N,), and
    under `ranks` the number of images whose class is among the `TOP` best (1,).
    Only `loss` has a gradient. `run` computes what `net` does, from its parameters; by default it
    is made for training. Under a loss of soft labels y is (N, classes), its largest share right.
    """

    def __init__(
        self,
        net: ClassicCNN,
        run: gluon.HybridBlock | None = None,
        loss: gluon.HybridBlock | None = None,
        *,
        ranks: bool = False,
    ) -> None:
        super().__init__(prefix="objective_")
        self.net = net
        self.run = pad_channels(net) if run is None else run
        self.loss = loss_for(net) if loss is None else loss
        self._soft = not getattr(self.loss, "_sparse_label", True)
        self._ranks = ranks

    def hybrid_forward(self, F: Any, x: Any, y: Any) -> tuple[Any, ...]:
        outputs = self.run(x)
        fixed = F.BlockGrad(outputs)
        winner = F.argmin if self.net.smallest_wins else F.argmax
        predicted = winner(fixed, axis=1)  # a float, as MXNet's argmax returns
        label = F.argmax(y, axis=1) if self._soft else y
        loss, hits = self.loss(outputs, y), F.broadcast_equal(predicted, label)
        results = loss, F.sum(F.BlockGrad(loss)), F.sum(hits), predicted
        if not self._ranks:
            return results
        return (*results, F.sum(class_ranks(F, fixed, label, self.net.smallest_wins) < TOP))


def class_ranks(F: Any, outputs: Any, label: Any, smallest_wins: bool) -> Any:
    """How many classes come before the right one (N,); of equal outputs the lower class does, as
    argmax has it."""
    right = F.pick(outputs, label, axis=1, keepdims=True)
    before = F.broadcast_lesser if smallest_wins else F.broadcast_greater
    number = F.broadcast_lesser(
        F.expand_dims(F.contrib.arange_like(outputs, axis=1), 0), F.expand_dims(label, 1)
    )
    return F.sum(before(outputs, right) + F.broadcast_equal(outputs, right) * number, axis=1)


def set_first_weights(net: ClassicCNN, initialiser: str, seed: int) -> None:
    """Give the trainable parameters of an initialised net the values drawn from the seed."""
    parameters = net._collect_params_with_prefix()
    shapes = {name: p.shape for name, p in parameters.items() if p.grad_req != "null"}
    for name, array in initial_arrays(shapes, initialiser, seed).items():
        parameters[name].set_data(mx.nd.array(array, dtype=parameters[name].dtype))


def build_net(
    config: TrainConfig,
    dataset: Dataset,
    devices: list[mx.Context],
    dtype: str = "float32",
    pretrained: Pretrained | None = None,
) -> ClassicCNN:
    """The configured net for this dataset, on the devices, its weights drawn from the seed, and
    taken from `pretrained` where they fit.

    Raises: ModelError where the images are too small for it, or the classes too many; UsageError
    where no pretrained weights fit, or nothing is left to train.
    """
    height, width, channels = dataset.shape
    if height != width:
        raise CommandError(
            f"{dataset.name} has images of {height}×{width}, expected square ones: "
            f"pass --image-size {max(height, width)}"
        )
    net = get_model(config.model, len(dataset.class_names), channels, height)
    net.cast(dtype)
    net.initialize(ctx=devices)
    set_first_weights(net, config.initialiser, config.seed)
    if pretrained is not None:
        set_weights(net, pretrained, config.init_lr_scale)
    kept = freeze(net, config.freeze)
    if pretrained is not None:
        pretrained.note_frozen(sorted(kept))
    return net


def make_trainer(
    net: ClassicCNN, config: TrainConfig, devices: list[mx.Context], peers: Alone = ALONE
) -> gluon.Trainer:
    """The configured optimizer over all parameters of the net; gradients are summed over devices
    and workers."""
    options: dict[str, Any] = {"learning_rate": config.lr, "wd": config.wd}
    name = config.optimizer
    if name == "sgd":
        options["momentum"] = config.momentum
        if config.nesterov:
            name = "nag"
    return parallel.combining_trainer(net.collect_params(), name, options, devices, peers.store)


@dataclass(frozen=True)
class Training:
    """A run that is ready to start: everything that could be refused has been checked."""

    config: TrainConfig
    dataset: Dataset
    devices: list[mx.Context]
    net: ClassicCNN
    trainer: gluon.Trainer
    objective: Objective
    evaluation: Objective  # on labels as they are, whatever the objective is trained on
    average: Average | None  # of the weights, where it is evaluated instead of them
    train: Batches
    test: Batches
    staging: Staging
    peers: Alone = ALONE
    dtype: str = "float32"


def make_batches(
    config: TrainConfig, dataset: Dataset, peers: Peers = ALONE
) -> tuple[Batches, Batches]:
    """The training batches of a run, of which each worker sees its part, and the test batches."""
    prepared = pixels(config.normalise, dataset.mean, dataset.std)
    train = Batches(
        dataset.train,
        config.batch_size,
        prepared,
        augment=config.augment,
        mixup=config.mixup,
        classes=len(dataset.class_names),
        shuffle=True,
        seed=config.seed,
        shard=(peers.rank, peers.count),
    )
    return train, Batches(dataset.test, EVALUATION_BATCH, prepared)


def prepare(
    config: TrainConfig,
    dataset: Dataset,
    ctx: str = "auto",
    peers: Alone = ALONE,
    *,
    dtype: str = "float32",
    pretrained: Pretrained | None = None,
) -> Training:
    """Build net, optimizer and batches; writes nothing.

    Raises: UsageError for a device that is not there, ModelError, DataError, CommandError.
    """
    devices = find_devices(ctx)
    net = build_net(config, dataset, devices, dtype, pretrained)
    objective = Objective(net, loss=loss_for(net, config.label_smoothing, config.mixup > 0))
    evaluation = Objective(net, objective.run, ranks=True)
    for each in (objective, evaluation):
        each.hybridize(static_alloc=True, static_shape=True)
    accumulate(net, config.grad_accum_steps)
    trainer = make_trainer(net, config, devices, peers)
    average = Average(net, config.ema) if config.ema and peers.rank == 0 else None
    train, test = make_batches(config, dataset, peers)
    staging = Staging(devices, dtype)
    return Training(
        config, dataset, devices, net, trainer, objective, evaluation, average, train, test,
        staging, peers, dtype,
    )  # fmt: skip
