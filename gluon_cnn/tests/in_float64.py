"""`python -m gluon_cnn.tests.in_float64 …`: the train command, computing in float64."""

import functools
import sys
from dataclasses import replace

from gluon_cnn import train, workers
from harness.cli import run
from harness.train_command import train_command

FRAMEWORK = replace(train.FRAMEWORK, prepare=functools.partial(train.prepare, dtype="float64"))

if __name__ == "__main__":
    sys.exit(workers.leave(run(lambda: train_command(FRAMEWORK, None, "in_float64"))))
