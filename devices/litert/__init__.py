"""LiteRT (TensorFlow Lite): the adapter, and the writer of its files."""
