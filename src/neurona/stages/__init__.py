"""The stages of a run, a file each, and what they share: building its objects, keeping its figures, the console."""
