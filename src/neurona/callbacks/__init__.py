"""Callbacks that watch or control a fit, one file each."""
