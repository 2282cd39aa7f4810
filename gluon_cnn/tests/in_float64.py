"""`python -m gluon_cnn.tests.in_float64 …`: the train command, computing in float64."""

import functools
import sys
from dataclasses import replace

from cnn_harness.cli import run
from cnn_harness.train_command import train_command
from gluon_cnn import train
from gluon_cnn.training import assembly, workers

FRAMEWORK = replace(train.FRAMEWORK, prepare=functools.partial(assembly.prepare, dtype="float64"))

if __name__ == "__main__":
    sys.exit(workers.leave(run(lambda: train_command(FRAMEWORK, None, "in_float64"))))
