"""An imported graph as files that need no MXNet and no `mxnet_files`: source, weights, a report."""
