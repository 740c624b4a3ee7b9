"""Data sets, a file each; how they are split and scaled, and handed out as mini-batches and chunks of them."""
