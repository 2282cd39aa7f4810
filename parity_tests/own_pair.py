"""`gluon-parity check --gluon … --torch … --input …`: a user's own pair, its flags and its run."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnn_harness.cli import Parser, positive
from cnn_harness.errors import UsageError
from parity_tests.api import OF_NETS, QUICK_LEVELS, TRAINED, check_parity
from parity_tests.backends.base import SIDES, backend
from parity_tests.backends.leaves import ParityError
from parity_tests.cases.arrays import read_batches
from parity_tests.cases.factories import load_function
from parity_tests.cases.pairs import user_case
from parity_tests.isolation import isolated
from parity_tests.reporting.report import Report
from parity_tests.reporting.verdicts import LEVELS, Level

_NEEDED = ("gluon", "torch", "input")


def add_flags(parser: Parser) -> None:
    """The flags that only a user's own pair has."""
    group = parser.add_argument_group(
        "your own pair", "PKG:FACTORY may have arguments: 'nets:resnet(depth=18, classes=10)'"
    )
    add = group.add_argument
    add("--gluon", metavar="PKG:FACTORY", help="your Gluon net, or its *-symbol.json file")
    add("--torch", metavar="PKG:FACTORY", help="your torch net")
    add(
        "--input", action="append", metavar="SHAPE|FILE",
        help="N,C,H,W to draw, N,T:int64<1000 for whole numbers, or x.npy, x.npz, x.npz:name; "
        "once for each input",
    )  # fmt: skip
    add(
        "--labels", metavar="SHAPE|FILE",
        help="as --input, such as 8:int64<10: the backward pass starts from the loss",
    )  # fmt: skip
    add(
        "--batches", type=positive, default=1, metavar="N",
        help="compare N batches: N draws, or a file's rows in N parts (1)",
    )  # fmt: skip
    add("--gluon-params", metavar="FILE", help="weights by save_parameters or export")
    add("--torch-weights", metavar="FILE", help="weights, *.safetensors or *.pt")
    add("--transfer", action="store_true", help="copy Gluon's weights into the torch net first")
    add(
        "--mapping", metavar="FILE",
        help="JSON object: Gluon's names of modules or parameters to torch's, for what is paired "
        "wrongly",
    )  # fmt: skip
    add(
        "--allow", action="append", default=[], metavar="PATH=REASON",
        help="what fails at this path, or pattern, is a note that says the reason",
    )  # fmt: skip
    add(
        "--repro", metavar="DIR",
        help="write the first divergence there: arrays, and a script for each side",
    )  # fmt: skip
    add(
        "--loss", metavar="NAME|PKG:LOSS",
        help=f"{', '.join(backend(SIDES[0]).losses)}, or a function of (output, labels); for both",
    )  # fmt: skip
    add("--gluon-loss", metavar="NAME|PKG:LOSS", help="Gluon's, where it is another one")
    add("--torch-loss", metavar="NAME|PKG:LOSS", help="torch's, where it is another one")
    add(
        "--optimizer", metavar="NAME(…)|PKG:F",
        help="'sgd(lr=0.1, momentum=0.9, wd=1e-4)', nag or adam, or a function of the net that "
        "gives its optimizer: compare the levels optimizer and training too",
    )  # fmt: skip
    add("--gluon-optimizer", metavar="NAME(…)|PKG:F", help="Gluon's, where it is another one")
    add("--torch-optimizer", metavar="NAME(…)|PKG:F", help="torch's, where it is another one")
    add(
        "--quick", action="store_true",
        help="each operation once, in float32 and inference; the report says what that misses",
    )  # fmt: skip
    add(
        "--save-mapped", metavar="FILE",
        help="write the torch net's state dict with Gluon's values, *.safetensors or *.pt; "
        "implies --transfer",
    )  # fmt: skip


_FLAGS = (
    "gluon", "torch", "input", "labels", "gluon_params", "torch_weights", "transfer", "mapping",
    "allow", "loss", "gluon_loss", "torch_loss", "optimizer", "gluon_optimizer",
    "torch_optimizer", "quick", "save_mapped", "repro",
)  # fmt: skip


def is_own_pair(args: Namespace) -> bool:
    """Whether the command line names a user's pair.

    Raises UsageError for flags of one without its nets, or beside those of this project's models.
    """
    given = [f"--{name.replace('_', '-')}" for name in _FLAGS if getattr(args, name)]
    if args.batches != 1:
        given.append("--batches")
    if not given:
        return False
    lacking = [f"--{name}" for name in _NEEDED if not getattr(args, name)]
    if lacking:
        raise UsageError(
            f"{given[0]} is for your own pair, which --gluon, --torch and --input name together; "
            f"{', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} missing"
        )
    if args.model or args.full:
        raise UsageError("--model and --full are for this project's models, not for your own pair")
    return True


def check_own_pair(args: Namespace, levels: Sequence[Level] | None) -> Report:
    """The report of the pair that a command line describes, at these levels or the default ones.

    Raises UsageError for anything that keeps the nets from being compared.
    """
    try:
        return isolated(lambda: _check(args, levels))
    except ParityError as error:  # 1 is for nets that were compared
        raise UsageError(str(error)) from error


def _check(args: Namespace, levels: Sequence[Level] | None) -> Report:
    optimizers = _optimizers(args)
    trained = TRAINED if optimizers is not None else ()
    known: tuple[Level, ...] = QUICK_LEVELS if args.quick else OF_NETS
    if levels is None:
        known = tuple(level for level in known if level not in TRAINED or level in trained)
    chosen = known if levels is None else tuple(level for level in levels if level in known)
    if not chosen:
        others = ", ".join(level for level in LEVELS if level not in known)
        raise UsageError(
            f"--level {','.join(levels or ())} cannot be asked of your own pair"
            f"{' with --quick' * args.quick}: {others} are not compared there"
        )
    losses = _losses(args)
    mapping = _mapping(args.mapping)
    batches = read_batches(args.input, args.labels, args.batches, args.seed)
    case = user_case(
        args.gluon,
        args.torch,
        batches,
        params=args.gluon_params or "",
        weights=args.torch_weights or "",
    )
    return check_parity(
        case.gluon_net,
        case.torch_net,
        case.inputs,
        case.labels,
        chosen,
        transfer=args.transfer,
        allow=reasons(args.allow),
        mapping=mapping,
        loss=losses,
        batches=case.more,
        optimizer=optimizers,
        steps=args.steps,
        quick=args.quick,
        save_mapped=args.save_mapped,
        repro=args.repro,
        progress=True,
        name=case.name,
    )


def _losses(args: Namespace) -> tuple[Any, Any] | None:
    texts = [args.gluon_loss or args.loss, args.torch_loss or args.loss]
    if not any(texts):
        return None
    if not all(texts):
        raise UsageError("--gluon-loss and --torch-loss go together, or with --loss for the other")
    if not args.labels:
        raise UsageError("--loss needs --labels")
    options = [f"--{side}-loss" if getattr(args, f"{side}_loss") else "--loss" for side in SIDES]
    known = [{name: name for name in backend(side).losses} for side in SIDES]
    ours, theirs = (
        load_function(str(text), option, Path.cwd(), names)
        for text, option, names in zip(texts, options, known, strict=True)
    )
    return ours, theirs


def _optimizers(args: Namespace) -> tuple[Any, Any] | None:
    texts = [args.gluon_optimizer or args.optimizer, args.torch_optimizer or args.optimizer]
    if not any(texts):
        return None
    if not all(texts):
        raise UsageError(
            "--gluon-optimizer and --torch-optimizer go together, or with --optimizer for the other"
        )
    if not args.labels:
        raise UsageError("--optimizer needs --labels")
    ours, theirs = (
        load_function(text, f"--{side}-optimizer", Path.cwd(), {})
        if ":" in text.partition("(")[0]
        else text
        for side, text in zip(SIDES, map(str, texts), strict=True)
    )
    return ours, theirs


def _mapping(path: str | None) -> Mapping[str, str] | None:
    if path is None:
        return None
    try:
        names = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"--mapping {path} cannot be read: {reason}") from error
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise UsageError(
            f'--mapping {path} is no JSON object of names, such as {{"features.0": "stem.conv"}}'
        )
    return names


def reasons(texts: Sequence[str]) -> dict[str, str]:
    """What `--allow PATH=REASON`, several times, says. Raises UsageError for another form."""
    known = dict(text.partition("=")[::2] for text in texts)
    for path, reason in known.items():
        if not path or not reason.strip():
            raise UsageError(
                f"--allow is {path!r}, expected PATH=REASON, such as 'aux=unused here'"
            )
    return known
