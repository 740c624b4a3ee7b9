"""How people start a run: the command line, and ``neurona.run``."""
