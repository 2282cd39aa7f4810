"""`gluon-cnn COMMAND`, or `python -m gluon_cnn COMMAND`: everything that trains and serves."""

from __future__ import annotations

import sys

from gluon_cnn_parity.command_group import Command, CommandGroup

COMMANDS = CommandGroup(
    script="gluon-cnn",
    description="Classic CNNs in MXNet Gluon: train them, look at them, take them elsewhere.",
    commands={
        "train": Command("gluon_cnn.train", "train a model, or resume a run"),
        "evaluate": Command("gluon_cnn.evaluate", "accuracy, scores and mistakes of a run"),
        "predict": Command("gluon_cnn.predict", "classify image files with a run"),
        "inspect": Command("gluon_cnn.inspect", "draw a run's filters and feature maps"),
        "export": Command("gluon_cnn.export", "write symbol, parameter and ONNX files of a run"),
        "summary": Command("gluon_cnn.summary", "what each layer puts out, holds and computes"),
        "models": Command("gluon_cnn.list_models", "every model: input, parameters, multiply-adds"),
        "launch": Command("gluon_cnn.launch", "train on several workers or machines"),
        "runtime": Command("gluon_cnn.runtime.command", "show or tune MXNet's threads and engine"),
        "prepare": Command("cnn_data.prepare", "download a data set and prepare it"),
    },
    extras="cpu",
)

main = COMMANDS.main

if __name__ == "__main__":
    sys.exit(main())
