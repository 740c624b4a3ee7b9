"""What a run leaves behind, and how it is found again: its folder, its checkpoints, where it comes from."""
