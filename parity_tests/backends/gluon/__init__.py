"""MXNet Gluon's adapter."""
