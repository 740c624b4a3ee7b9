"""Tables of one's own: reading, typing, encoding and describing their columns."""
