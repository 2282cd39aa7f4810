"""Threads and engine, settled before MXNet loads; python -m gluon_cnn.runtime shows them."""
