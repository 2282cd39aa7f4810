"""`gluon-parity check`, `python -m parity_tests`: print a table, name the first divergence."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import gluon_cnn  # noqa: F401  (settles MXNet's threads before it loads)
from gluon_cnn_parity import did_you_mean
from cnn_harness.cli import Parser, as_command, natural, positive, print_json
from cnn_harness.errors import UsageError
from gluon_cnn_parity.atomic import unfit
from parity_tests.api import DEFAULT_LEVELS, check_parity
from parity_tests.backends.heap import keep_freed_memory
from parity_tests.backends.leaves import ParityError
from parity_tests.cases.models import FULL, MODELS
from parity_tests.cases.pairs import Case, project_case
from parity_tests.cases.recorded import check_recorded
from parity_tests.faults.commands import CLEAN_PAIRS, clean_command, faults_command
from parity_tests.isolation import isolated
from parity_tests.levels.data import check_data
from parity_tests.levels.multi_device.level import MULTI_DEVICE_MODELS, check_multi_device
from parity_tests.levels.optimizer.updates import check_optimizer
from parity_tests.levels.training.features import FEATURES_MODEL, check_features
from parity_tests.levels.training.level import check_training
from parity_tests.own_pair import add_flags, check_own_pair, is_own_pair, reasons
from parity_tests.reporting.files import write_report
from parity_tests.reporting.report import Report
from parity_tests.reporting.results import SCHEMA
from parity_tests.reporting.table import table
from parity_tests.reporting.verdicts import LEVELS, Level, Side

# What takes many steps, and minutes, is checked where it is asked for.
MANY_STEPS = (Level.OPTIMIZER, Level.TRAINING, Level.MULTI_DEVICE)
OF_ONE_STEP = tuple(level for level in LEVELS if level not in MANY_STEPS)
OF_NETS = tuple(level for level in OF_ONE_STEP if level != Level.DATA)  # and of any pair

_Word = TypeVar("_Word", bound=str)


@as_command(ParityError, extras="cpu,parity")
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.faults or args.clean is not None:
        return _of_itself(args)
    chosen = _chosen(args.level, LEVELS, "--level") if args.level else None
    levels = chosen or OF_ONE_STEP
    recorded = bool(args.gluon_recorded or args.torch_recorded)
    if recorded:
        _check_recorded_flags(args)
    own = not recorded and is_own_pair(args)
    if args.repro and not (own or recorded):
        raise UsageError("--repro is for your own pair: name --gluon, --torch and --input too")
    if args.repro and Path(args.repro).exists():
        raise UsageError(f"--repro {args.repro} is there already; name a new folder")
    if args.repro and (why := unfit(Path(args.repro))):
        raise UsageError(f"--repro {args.repro} {why}")
    if args.report and (why := unfit(Path(args.report))):
        raise UsageError(f"--report {args.report} {why}")
    if args.full:
        keep_freed_memory()
    reports = []
    try:
        found = [check_own_pair(args, chosen)] if own else _reports(args, levels)
        for report in found:
            reports.append(report)
            if not args.json:
                print(_progress(report), file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        if not reports:
            raise
    if args.report:
        write_report(Path(args.report), reports)
        print(f"report: {Path(args.report) / 'report.html'}", file=sys.stderr)
    failed = [report for report in reports if not report.ok]
    if args.json:
        print_json({"schema": SCHEMA, "ok": not failed, "reports": [_summary(r) for r in reports]})
    else:
        print(table(reports, LEVELS, sys.stdout))
    for report in failed:
        print(f"{report.name}: {report.first_divergence}", file=sys.stderr)
    return 1 if failed else 0


def _check_recorded_flags(args: Any) -> None:
    """A record stands for one net and its input."""
    if args.repro:
        raise UsageError("--repro needs both nets, and a record cannot be run again")
    side, other = ("gluon", "torch") if args.gluon_recorded else ("torch", "gluon")
    unwanted = args.input or getattr(args, side) or (args.gluon_recorded and args.torch_recorded)
    if unwanted or not getattr(args, other):
        raise UsageError(
            f"--{side}-recorded goes with --{other} alone: the record has its own net and input"
        )


def _of_itself(args: Any) -> int:
    """What this checker catches, and how often it cries wolf."""
    if args.faults and args.clean is not None:
        raise UsageError("--faults and --clean are two commands: give one of them")
    if any((args.model, args.level, args.full)) or is_own_pair(args):
        raise UsageError("--faults and --clean choose their own nets: leave the other flags out")
    if args.faults:
        return faults_command(as_json=args.json, folder=args.report)
    return clean_command(args.clean, as_json=args.json)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m parity_tests",
        description="Check, layer by layer, that Gluon and PyTorch compute the same.",
        epilog=f"Models: {', '.join(MODELS)}. Levels: {', '.join(LEVELS)}. Exit status: 0 parity, "
        "1 a divergence (named on stderr), 2 bad usage.",
    )
    parser.add_argument(
        "--model", action="append", metavar="NAME", help="model, or several with commas; unset: all"
    )
    parser.add_argument(
        "--level", action="append", metavar="NAME",
        help="level, or several with commas; unset: all but optimizer, training and scale",
    )  # fmt: skip
    parser.add_argument("--steps", type=positive, default=20, help="steps of the training level")
    parser.add_argument(
        "--full", action="store_true", help="also alexnet and vgg16 at 224×224, forward"
    )
    parser.add_argument(
        "--gluon-recorded", metavar="DIR", help="a Gluon net that was recorded elsewhere"
    )
    parser.add_argument(
        "--torch-recorded", metavar="DIR", help="a torch net that was recorded elsewhere"
    )
    parser.add_argument(
        "--faults", action="store_true",
        help="plant the whole fault catalogue and print the kill matrix",
    )  # fmt: skip
    parser.add_argument(
        "--clean", type=positive, nargs="?", const=CLEAN_PAIRS, metavar="N",
        help=f"check N random clean pairs, none of which may alarm ({CLEAN_PAIRS} without N)",
    )  # fmt: skip
    parser.add_argument("--batch-size", type=positive, default=2, help="images of the model checks")
    parser.add_argument("--seed", type=natural, default=0, help="seed of weights and inputs")
    parser.add_argument("--report", metavar="DIR", help="write report.html and report.json there")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object, without the single comparisons"
    )
    add_flags(parser)
    return parser


def _chosen(values: list[str] | None, known: Sequence[_Word], flag: str) -> tuple[_Word, ...]:
    """What a repeatable, comma-separated flag names, in the order of `known`; all if unset."""
    if values is None:
        return tuple(known)
    names = [name.strip() for text in values for name in text.split(",")]
    unknown = [name for name in names if name not in known]
    if unknown:
        nearest = did_you_mean(unknown[0], known)
        raise UsageError(f"{flag} is {unknown[0]!r}, expected some of {', '.join(known)}{nearest}")
    return tuple(name for name in known if name in names)


def _reports(args: Any, levels: tuple[Level, ...]) -> Iterator[Report]:
    if args.gluon_recorded or args.torch_recorded:
        yield _of_record(args, levels)
        return
    if Level.OPTIMIZER in levels:
        yield check_optimizer()
    levels = tuple(level for level in levels if level != Level.OPTIMIZER)
    known = (
        MULTI_DEVICE_MODELS if levels == (Level.MULTI_DEVICE,) and not args.model else tuple(MODELS)
    )
    of_nets = tuple(level for level in levels if level in OF_NETS)
    for name in _chosen(args.model, known, "--model") if levels else ():
        report = None
        if of_nets:
            case = project_case(name, batch=args.batch_size, seed=args.seed)
            report = _check(case, of_nets)
        if Level.TRAINING in levels:
            training = check_training(name, steps=args.steps, seed=args.seed)
            if name == FEATURES_MODEL:
                training = _joined(training, check_features(), levels)
            report = training if report is None else _joined(report, training, levels)
        if Level.MULTI_DEVICE in levels:
            scale = check_multi_device(name, seed=args.seed)
            report = scale if report is None else _joined(report, scale, levels)
        if Level.DATA in levels:
            data = check_data(name, seed=args.seed)
            report = data if report is None else _joined(report, data, levels)
        assert report is not None  # levels are never empty
        yield report
        if args.full and name in FULL and Level.FORWARD in levels:
            full = project_case(name, full=True, batch=1, seed=args.seed)
            cheap = (Level.STRUCTURE, Level.WEIGHTS, Level.FORWARD)
            some = tuple(level for level in levels if level in cheap)
            result = _check(full, some)
            result.name = f"{name} 224"
            yield result


def _of_record(args: Any, levels: tuple[Level, ...]) -> Report:
    known = tuple(level for level in levels if level in DEFAULT_LEVELS)
    if not known:
        raise UsageError(f"--level {','.join(levels)} cannot be seen in a record")
    side = Side.GLUON if args.gluon_recorded else Side.TORCH
    folder, spec = (
        (args.gluon_recorded, args.torch)
        if side == Side.GLUON
        else (args.torch_recorded, args.gluon)
    )
    try:
        allow = reasons(args.allow)
        return isolated(
            lambda: check_recorded(folder, side, spec, known, transfer=args.transfer, allow=allow)
        )
    except ParityError as error:  # 1 is for nets that were compared
        raise UsageError(str(error)) from error


def _check(case: Case, levels: tuple[Level, ...]) -> Report:
    return check_parity(
        case.gluon_net,
        case.torch_net,
        case.inputs,
        case.labels,
        levels,
        progress=True,
        name=case.name,
    )


def _joined(first: Report, second: Report, levels: tuple[Level, ...]) -> Report:
    first.levels = levels
    first.add(second.rows, second.coverage)
    first.seconds += second.seconds
    return first


def _progress(report: Report) -> str:
    return f"{report.name}: {'ok' if report.ok else report.outcome}, {report.seconds:.1f} s"


def _summary(report: Report) -> dict[str, Any]:
    long = ("rows", "inherited")
    return {key: value for key, value in report.as_dict().items() if key not in long}
