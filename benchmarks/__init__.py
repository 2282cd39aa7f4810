"""Both frameworks and the source script, side by side, each in a process of its own."""
