"""PyTorch's side: the mirror's nets with torch's own fused Adam, as fast as torch has it."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.cases import COMPILED, RECIPE, Case, Turn, repeated, step_times
from benchmarks.numpy_side import EVERY, mnist, random_batch
from cnn_data import Dataset
from cnn_harness.config import TrainConfig
from cnn_harness.epochs import epoch_rates
from torch_ref.models import MODELS, get_model
from torch_ref.training.assembly import prepare, to_device
from torch_ref.training.loop import evaluate
from torch_ref.training.recipes import OWN


def begin(case: Case) -> Turn:
    """A case of this side, ready for its turns."""
    torch.set_num_threads(case.threads)
    parts = {"train": _train, "infer": _infer, "accuracy": _accuracy, "peak": _peak}
    return parts[case.part](case)


def _net(case: Case) -> tuple[torch.nn.Module, torch.memory_format]:
    net: Any = get_model(case.model)
    layout = torch.contiguous_format
    if case.side.endswith("channels_last"):
        layout = torch.channels_last
        net = net.to(memory_format=layout)
    return net, layout


def _compiled(case: Case, net: torch.nn.Module) -> Any:
    if case.side == "frozen":
        from torch._inductor import config

        config.freezing = True  # weights become constants, laid out once
    return torch.compile(net) if case.side in COMPILED else net


def _train(case: Case) -> Turn:
    net, layout = _net(case)
    # None: what torch takes by itself
    fused = True if case.side.startswith("fused_adam") else None
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-5, fused=fused)
    run = _compiled(case, net)
    x, y = random_batch(MODELS[case.model].input_shape, case.batch)

    def step() -> None:
        images = torch.from_numpy(x).contiguous(memory_format=layout)
        optimizer.zero_grad(set_to_none=True)
        outputs = run(images)
        labels = torch.from_numpy(y)
        F.cross_entropy(outputs, labels).backward()
        (outputs.detach().argmax(1) == labels).sum()  # ours counts hits in every step
        optimizer.step()

    return repeated(case, step)


def _infer(case: Case) -> Turn:
    net, layout = _net(case)
    net.eval()
    run = _compiled(case, net)
    x, _ = random_batch(MODELS[case.model].input_shape, case.batch)

    def step() -> None:
        # freezing does nothing in inference mode
        with torch.no_grad() if case.side == "frozen" else torch.inference_mode():
            run(torch.from_numpy(x).contiguous(memory_format=layout)).numpy()

    return repeated(case, step)


def _peak(case: Case) -> Turn:
    n = case.batch
    a, b, out = torch.randn(n, n), torch.randn(n, n), torch.empty(n, n)

    def turn(_: int) -> dict[str, Any]:
        times = step_times(lambda: torch.mm(a, b, out=out), case.seconds)
        return {"flops": 2 * n**3 / min(times), "seconds": statistics.median(times)}

    return turn


def _accuracy(case: Case) -> Turn:
    dataset = mnist(case)
    return lambda turn: {"curve": _curve(OWN[RECIPE].replace(seed=turn), dataset)}


def _curve(config: TrainConfig, dataset: Dataset) -> list[list[float]]:
    """Seconds of training and test accuracy so far, every `EVERY` batches; testing is not timed."""
    training = prepare(config, dataset, "cpu")
    # torch's fused Adam in place of the mirror's, which spells out MXNet's rule step by step
    optimizer = torch.optim.Adam(training.net.parameters(), lr=config.lr, fused=True)
    spent, curve = 0.0, []
    for epoch in range(1, config.epochs + 1):
        rates = epoch_rates(config, epoch, len(training.train))
        training.objective.train()
        start = time.perf_counter()
        for number, (rate, (x, y)) in enumerate(
            zip(rates, training.train.epoch(epoch), strict=True), 1
        ):
            for group in optimizer.param_groups:
                group["lr"] = rate
            images, labels = to_device(x, y, training.device)
            optimizer.zero_grad(set_to_none=True)
            loss, hits, _ = training.objective(images, labels)
            loss.mean().backward()
            hits.sum()
            optimizer.step()
            if number % EVERY == 0 or number == len(rates):
                spent += time.perf_counter() - start
                result = evaluate(training.evaluation, training.test, training.device)
                training.objective.train()
                curve.append([spent, result.accuracy])
                start = time.perf_counter()
    return curve
