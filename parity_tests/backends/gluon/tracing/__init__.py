"""Records what a Gluon net executes, and reads it into the common vocabulary."""
