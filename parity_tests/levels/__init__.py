"""What is compared: one module or folder a level, each reported on its own."""
