"""Tables of your own: their columns are read, typed, encoded and described."""
