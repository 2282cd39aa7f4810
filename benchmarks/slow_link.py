"""The parameter server over a slow link, on this machine alone: `python -m benchmarks.slow_link`.

Each process of the job gets a network namespace of its own, joined by virtual cables to a switch in
another one, and `tc` limits what every cable carries. Nothing touches the machine's own network.
What is measured is a step's exchange of gradients: a push and a pull of every parameter of a model.
Needs root, and Debian's iproute2.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cnn_harness.cli import Parser, as_command, positive, print_json
from cnn_harness.errors import CommandError
from gluon_cnn.launch import SERVE
from gluon_cnn.models import get_model

# isort: split
import mxnet as mx  # after gluon_cnn, which settles its threads before it loads

BOUND = 1_000_000  # MXNET_KVSTORE_BIGARRAY_BOUND
WORKER = "worker"  # the first word of a worker's own command line
PREFIX = "gcn"  # of every namespace
PORT = 9876
BURST = 256 * 1024  # bytes that a cable passes at once: small beside any exchange


@as_command()
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = Parser(prog="python -m benchmarks.slow_link", description=__doc__)
    parser.add_argument("--model", default="lenet", help="whose parameters are exchanged")
    parser.add_argument("--workers", type=positive, default=2, help="worker processes")
    parser.add_argument("--servers", type=positive, default=1, help="parameter servers")
    parser.add_argument("--mbit", type=positive, default=None, help="Mbit/s of a cable; unset: any")
    parser.add_argument(
        "--bound", type=positive, default=BOUND,
        help="elements from which an array is split over all servers",
    )  # fmt: skip
    parser.add_argument("--rounds", type=positive, default=5, help="exchanges to time")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    if os.geteuid() or not all(map(shutil.which, ("ip", "tc"))):
        raise CommandError("network namespaces need root, and ip and tc of the package iproute2")
    hosts = ["scheduler", *(f"server{n}" for n in range(args.servers)),
             *(f"worker{n}" for n in range(args.workers))]  # fmt: skip
    # A plain SIGTERM would leave the namespaces behind
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with network(hosts, args.mbit) as addresses:
        measured = _exchange(args, hosts, addresses)
    sizes = measured["sizes"]
    size = sum(sizes)
    wait = expected_seconds(sizes, args.workers, args.servers, args.mbit, args.bound)
    result = {
        "model": args.model, "workers": args.workers, "servers": args.servers, "mbit": args.mbit,
        "megabytes": round(size / 1e6, 3), "seconds": measured["seconds"],
        "of_the_link": None if wait is None else round(wait, 4),
    }  # fmt: skip
    if args.json:
        print_json(result)
    else:
        link = "any speed" if args.mbit is None else f"{args.mbit} Mbit/s: {wait:.3f} s expected"
        print(
            f"{args.model}, {args.workers} workers, {args.servers} servers: {size / 1e6:.2f} MB of "
            f"gradients, {measured['seconds']:.4f} s a step, links of {link}"
        )
    return 0


def busiest(sizes: Sequence[int], servers: int, bound: int = BOUND) -> float:
    """The bytes that the server with the most of a model holds of it.

    An array of fewer than `bound` float32 numbers is on one server, that of its number times a
    prime; a larger one is split evenly (MXNet's `kvstore_dist.h`, EncodeDefaultKey).
    """
    held = [0.0] * servers
    for key, size in enumerate(sizes):
        if size < 4 * bound:
            held[key * 9973 % servers] += size
        else:
            held = [some + size / servers for some in held]
    return max(held)


def expected_seconds(
    sizes: Sequence[int], workers: int, servers: int, mbit: float | None, bound: int = BOUND
) -> float | None:
    """What the busiest cable needs for a step, in one direction: a server's, or a worker's.

    Pushes go one way and sums the other, and a cable carries both at once. A sum starts when its
    last push is in, so that the whole takes at least this and at most twice as long.
    """
    if mbit is None:
        return None
    return max(busiest(sizes, servers, bound) * workers, sum(sizes)) / (mbit * 125_000)


@contextmanager
def network(hosts: Sequence[str], mbit: int | None) -> Iterator[dict[str, str]]:
    """Namespaces of these names on one switch; gives their addresses, and removes them at the end.

    Raises: CommandError where namespaces or traffic control are not permitted.
    """
    made = [f"{PREFIX}-switch", *(f"{PREFIX}-{host}" for host in hosts)]
    with ExitStack() as undo:
        for name in made:
            _ip("netns", "add", name)
            undo.callback(_ip, "netns", "del", name)
        _inside(made[0], "ip", "link", "add", "bridge0", "type", "bridge")
        _inside(made[0], "ip", "link", "set", "bridge0", "up")
        addresses = {}
        for number, (host, name) in enumerate(zip(hosts, made[1:], strict=True), 1):
            plug = f"plug{number}"
            _inside(made[0], "ip", "link", "add", plug, "type", "veth",
                    "peer", "name", "eth0", "netns", name)  # fmt: skip
            _inside(made[0], "ip", "link", "set", plug, "master", "bridge0", "up")
            addresses[host] = f"10.77.0.{number}"
            _inside(name, "ip", "addr", "add", f"{addresses[host]}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _inside(name, "ip", "link", "set", device, "up")
            if mbit is not None:
                rate = ["rate", f"{mbit}mbit", "burst", str(BURST), "latency", "200ms"]
                for where, device in ((name, "eth0"), (made[0], plug)):
                    _inside(where, "tc", "qdisc", "add", "dev", device, "root", "tbf", *rate)
        yield addresses


def _exchange(args: object, hosts: Sequence[str], addresses: dict[str, str]) -> dict:
    """Run the job's processes in their namespaces; the slowest worker's figures."""
    counts = {"DMLC_NUM_WORKER": sum(h.startswith("worker") for h in hosts),
              "DMLC_NUM_SERVER": sum(h.startswith("server") for h in hosts)}  # fmt: skip
    shared = {
        "DMLC_PS_ROOT_URI": addresses["scheduler"], "DMLC_PS_ROOT_PORT": str(PORT),
        "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
        **{name: str(count) for name, count in counts.items()},
    }  # fmt: skip
    shared["MXNET_KVSTORE_BIGARRAY_BOUND"] = str(getattr(args, "bound", BOUND))
    model, rounds = getattr(args, "model", ""), getattr(args, "rounds", 0)
    jobs: dict[str, subprocess.Popen[str]] = {}
    try:
        for host in hosts:
            role = host.rstrip("0123456789")
            own = {**shared, "DMLC_ROLE": role, "DMLC_NODE_HOST": addresses[host]}
            command = [*SERVE]
            if role == "worker":
                command = [sys.executable, "-m", "benchmarks.slow_link", WORKER, model, str(rounds)]
            jobs[host] = subprocess.Popen(
                ["ip", "netns", "exec", f"{PREFIX}-{host}", "env",
                 *(f"{name}={value}" for name, value in own.items()), *command],
                stdout=subprocess.PIPE if role == "worker" else None, text=True,
            )  # fmt: skip
        answers = []
        for host, job in jobs.items():
            out, _ = job.communicate(timeout=900) if host.startswith("worker") else ("", "")
            if job.returncode:
                raise CommandError(f"{host} exited with status {job.returncode}")
            if out:
                answers.append(json.loads(out.splitlines()[-1]))
        for job in jobs.values():
            job.wait(60)
        return max(answers, key=lambda answer: answer["seconds"])
    finally:
        for job in jobs.values():
            if job.poll() is None:
                job.kill()
        time.sleep(0.2)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CommandError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def _inside(name: str, *words: str) -> None:
    _ip("netns", "exec", name, *words)


def gradient_shapes(model: str) -> list[tuple[int, ...]]:
    """The shapes of a model's gradients in the order in which a Trainer counts them."""
    parameters = sorted(get_model(model, 10).collect_params().items())
    return [parameter.shape for _, parameter in parameters if parameter.grad_req != "null"]


def worker(model: str, rounds: int) -> None:
    """One worker's process: times exchanges of a model's gradients, and prints the median."""
    store = mx.kv.create("dist_sync")
    gradients = [mx.nd.ones(shape) for shape in gradient_shapes(model)]
    for key, gradient in enumerate(gradients):
        store.broadcast(key, gradient, out=gradient)
    seconds = []
    for number in range(rounds + 1):  # the first fills buffers
        store._barrier()
        began = time.perf_counter()
        for key, gradient in enumerate(gradients):
            store.pushpull(key, gradient, priority=-key)
        mx.nd.waitall()
        if number:
            seconds.append(time.perf_counter() - began)
    sizes = [4 * int(gradient.size) for gradient in gradients]
    print(json.dumps({"seconds": statistics.median(seconds), "sizes": sizes}))


if __name__ == "__main__":
    if sys.argv[1:2] == [WORKER]:
        worker(sys.argv[2], int(sys.argv[3]))
    else:
        sys.exit(main())
