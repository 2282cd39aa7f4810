"""`torchrun … -m torch_ref.tests.in_float64 …`: the train command, computing in float64."""

import functools
import sys
from dataclasses import replace

from cnn_harness.cli import run
from cnn_harness.train_command import train_command
from torch_ref import train
from torch_ref.training import assembly

FRAMEWORK = replace(train.FRAMEWORK, prepare=functools.partial(assembly.prepare, dtype="float64"))

if __name__ == "__main__":
    sys.exit(run(lambda: train_command(FRAMEWORK, None, "in_float64")))
