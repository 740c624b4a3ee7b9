"""What TensorBoard and the other loggers are told, beside the figures of training and evaluation."""
