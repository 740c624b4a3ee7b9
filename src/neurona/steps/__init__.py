"""How mini-batches become optimiser steps: directly, compiled, or as a CUDA graph."""
