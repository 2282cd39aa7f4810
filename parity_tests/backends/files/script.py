"""`gluon-parity record`: print the file that records a net where this project is not."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from cnn_harness.cli import Parser, as_command
from gluon_cnn_parity.atomic import write_text
from parity_tests.reporting.verdicts import Side

_OURS = re.compile(r"^from parity_tests\.backends\.files\.tape import \([^)]*\)\n", re.MULTILINE)


def script_of(side: Side) -> str:
    """The text of the script: it needs Python 3.6, numpy and the framework, and nothing else.

    >>> "parity_tests.backends" in script_of(Side.GLUON)
    False
    """
    files = resources.files("parity_tests.backends.files")
    tape, script = (
        (files / name).read_text(encoding="utf-8") for name in ("tape.py", f"{side}_script.py")
    )
    return f"#!/usr/bin/env python3\n{tape}\n\n{_OURS.sub('', script)}"


@as_command()
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = Parser(
        prog="gluon-parity record",
        description="Write the script that records a net where this project is not installed: it "
        "needs numpy and MXNet 1.5 or newer on Python 3.6 or newer, or torch 1.13 or newer.",
        epilog="There: python record.py pkg:factory --input 1,3,224,224 --out DIR. "
        "Here: gluon-parity check --gluon-recorded DIR --torch pkg:factory.",
    )
    parser.add_argument(
        "--framework", choices=("gluon", "torch"), default="gluon", help="whose net is recorded"
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--print", action="store_true", help="print the script")
    target.add_argument("--script", metavar="OUT.py", help="write the script there")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    text = script_of(Side(args.framework))
    if args.script:
        write_text(Path(args.script), text)
    if args.json:
        body = {"path": args.script} if args.script else {"script": text}
        print(json.dumps({"framework": args.framework, **body}))
    elif args.print:
        sys.stdout.write(text)
    else:
        print(f"wrote {args.script}: run it where the {args.framework} net is")
    return 0


if __name__ == "__main__":
    sys.exit(main())
