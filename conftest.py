"""Loads MXNet the way the commands do, before any test module can import it differently."""

import os

# Test processes share the machine, and threads that spin on cores of their own would fight.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import gluon_cnn  # noqa: F401
