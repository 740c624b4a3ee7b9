"""A trained run in forms that other programs load, and the card that comes with it."""
