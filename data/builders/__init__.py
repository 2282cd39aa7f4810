"""TFDS builders that need no TensorFlow: they write what `load_dataset` reads back."""
