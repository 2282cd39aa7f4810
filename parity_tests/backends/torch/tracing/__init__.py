"""Records what a torch net executes, and reads it into the common vocabulary."""
