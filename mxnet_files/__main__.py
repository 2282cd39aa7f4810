"""`mxnet-files COMMAND`, or `python -m mxnet_files COMMAND`: MXNet's files into PyTorch.

`python -m mxnet_files x-symbol.json x-0000.params …` is `convert`.
"""

from __future__ import annotations

import sys

from gluon_cnn_parity.command_group import Command, CommandGroup

COMMANDS = CommandGroup(
    script="mxnet-files",
    description="Open MXNet's symbol and parameter files in PyTorch, without MXNet.",
    commands={
        "convert": Command("mxnet_files.convert", "write PyTorch source, weights and ONNX, proven"),
        "verify": Command("mxnet_files.convert:verify", "check such a folder again, without MXNet"),
        "report": Command(
            "mxnet_files.survey", "say which models of a folder open, what others lack"
        ),
        "diff": Command("mxnet_files.diff", "compare two checkpoints of any formats by value"),
        "map": Command("parity_tests.pairing.filling", "fill your own torch class by what it runs"),
        "operators": Command(
            "mxnet_files.checking.supported", "list what is read, and how each was verified"
        ),
        "check": Command(
            "mxnet_files.convert:check", "compare the import with MXNet, node by node"
        ),
        "zoo": Command("mxnet_files.checking.zoo", "compare the 34 models of MXNet's zoo"),
    },
    extras="torch",
    default="convert",
)

main = COMMANDS.main

if __name__ == "__main__":
    sys.exit(main())
