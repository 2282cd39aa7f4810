"""Loads MXNet the way the commands do, before any test module can import it differently."""

import gluon_cnn  # noqa: F401
