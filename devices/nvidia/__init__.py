"""NVIDIA GPUs: torch, ONNX Runtime's CUDA provider and TensorRT."""
