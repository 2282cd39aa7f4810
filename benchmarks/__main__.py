"""`python -m benchmarks [--quick]`: measure, and write results, a table and a picture."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.cases import OF_AN_EXPORT, SIDES, Group, groups
from benchmarks.numpy_side import write_photographs
from benchmarks.results import describe, picture, read, table, write
from benchmarks.runner import expected_seconds, run_group
from cnn_harness.cli import Parser, as_command, positive, print_json
from cnn_harness.errors import CommandError, UsageError
from gluon_cnn.export import export_net, fresh_net
from gluon_cnn.models import get_model
from gluon_cnn.runtime import settings as runtime


def _parser() -> Parser:
    parser = Parser(
        prog="python -m benchmarks",
        description="Time both frameworks, inference engines and the source script, each in a "
        "process of its own that stays and takes short turns. Run it on a machine that does "
        "nothing else. It says before it starts about how long it will take.",
    )
    parser.add_argument("--quick", action="store_true", help="two short turns of the smallest")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="TEXT",
        default=[],
        help="groups whose name holds one of these, such as 'train lenet'",
    )
    parser.add_argument(
        "--sides",
        nargs="+",
        choices=tuple(SIDES),
        default=list(SIDES),
        help="only these sides of the groups",
    )
    parser.add_argument("--repeats", type=positive, default=7, help="turns of each side")
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="folder with MNIST's four files; unset: time to accuracy is left out",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("benchmarks/results"),
        metavar="DIR",
        help="folder of the results",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="leave out groups that --out has whole, of the same day, machine and versions",
    )
    parser.add_argument("--list", action="store_true", help="name the groups and measure nothing")
    parser.add_argument(
        "--table",
        action="store_true",
        help="only write table and picture again, from the results in --out",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    return parser


def with_files(group: Group, folder: Path) -> Group:
    """The group with the files that its sides open, in the folder: its model's export, written once
    a model, or photographs."""
    first = group.cases[0]
    if first.part == "waiting":
        path = folder / group.name
        write_photographs(path, first.images, get_model(first.model).input_shape[1])
        return replace(group, cases=(replace(first, data_dir=str(path)),))
    if not any(case.side in OF_AN_EXPORT for case in group.cases):
        return group
    path = folder / first.model
    if not path.exists():
        export_net(fresh_net(first.model), path, onnx=True, engine="auto")
    return replace(group, cases=tuple(
        replace(case, export=str(path)) if case.side in OF_AN_EXPORT else case
        for case in group.cases
    ))  # fmt: skip


class Remaining:
    """About how long the groups that are left will take, by what those before them took."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self._left = {group.name: expected_seconds(group) for group in groups}
        self._expected = self._taken = 0.0

    def note(self, group: Group, seconds: float) -> None:
        self._expected += self._left.pop(group.name)
        self._taken += seconds

    def __str__(self) -> str:
        factor = self._taken / self._expected if self._expected else 1.0
        return f"about {factor * sum(self._left.values()) / 60:.0f} minutes left"


def is_measured(result: Mapping[str, Any] | None, group: Group, about: Mapping[str, Any]) -> bool:
    """Whether a result holds every turn of the group, without failures, under the same `about`."""
    if result is None or result["about"] != about or result["failures"]:
        return False
    return {side: len(runs) for side, runs in result["runs"].items()} == {
        case.side: group.repeats for case in group.cases
    }


@as_command()
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 1 where a measurement failed."""
    args = _parser().parse_args(argv)
    threads = runtime.cores()
    compiler = any(shutil.which(name) for name in ("g++", "c++", "clang++"))
    every = groups(
        threads, args.data_dir, quick=args.quick, repeats=args.repeats, compiler=compiler
    )
    every = [
        replace(g, cases=cases)
        for g in every
        if (cases := tuple(case for case in g.cases if case.side in args.sides))
    ]
    chosen = [g for g in every if not args.only or any(text in g.name for text in args.only)]
    if not chosen:
        raise UsageError(f"--only {' '.join(args.only)} names no group: see --list")
    if args.list:
        print("\n".join(group.name for group in chosen))
        return 0
    say = partial(print, file=sys.stderr if args.json else sys.stdout, flush=True)
    about = describe(threads)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        before = read(args.out) if args.resume and args.out.is_dir() else {}
        done = [g for g in chosen if is_measured(before.get(g.name), g, about)]
        left = [] if args.table else [group for group in chosen if group not in done]
        for group in done:
            say(f"{group.name}: measured already")
        clock = Remaining(left)
        if left:
            say(f"{len(left)} groups of processes that take turns, {clock}")
        for group in left:
            began = time.perf_counter()
            result = run_group(with_files(group, Path(folder)), say)
            write(args.out, result, about)
            seconds = time.perf_counter() - began
            clock.note(group, seconds)
            say(f"{group.name}: {seconds:.0f} s, {result['turns_seconds']:.0f} s in turns; {clock}")
            failed += len(result["failures"])
    results = read(args.out) if args.out.is_dir() else {}
    if not results:
        raise CommandError(f"{args.out} holds no results: measure first")
    order = {group.name: number for number, group in enumerate(every)}
    results = dict(sorted(results.items(), key=lambda item: order.get(item[0], len(order))))
    (args.out / "table.md").write_text(table(results), encoding="utf-8")
    picture(results, args.out / "speed.png")
    if args.json:
        print_json({"out": args.out, "groups": [g.name for g in chosen], "failed": failed})
    else:
        print(f"{args.out / 'table.md'} and {args.out / 'speed.png'} are written")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
