"""An import beside MXNet itself."""
