"""`gluon-parity COMMAND`, or `python -m parity_tests [COMMAND]`: check, and the upgrade gate."""

from __future__ import annotations

import sys

from gluon_cnn_parity.command_group import Command, CommandGroup

COMMANDS = CommandGroup(
    script="gluon-parity",
    description="Say, operation by operation, whether a Gluon and a PyTorch net compute the same.",
    commands={
        "check": Command("parity_tests.check", "compare this project's models, or your own pair"),
        "faults": Command("parity_tests.faults.commands:plant", "plant faults: what is caught"),
        "clean": Command("parity_tests.faults.commands:try_clean", "equal pairs: what alarms"),
        "snapshot": Command("parity_tests.gate.snapshot", "record what both frameworks compute"),
        "compare": Command("parity_tests.gate.compare", "what moved between two snapshots"),
        "record": Command("parity_tests.backends.files.script", "a script that records a net"),
        "matrix": Command("parity_tests.gate.matrix", "one table of many versions' snapshots"),
    },
    extras="cpu,parity",
    default="check",
)

main = COMMANDS.main

if __name__ == "__main__":
    sys.exit(main())
