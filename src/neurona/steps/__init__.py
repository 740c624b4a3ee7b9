"""How mini-batches become optimiser steps: by recordings, compiled, as a CUDA graph, or directly."""
