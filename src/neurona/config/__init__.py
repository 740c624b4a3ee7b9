"""What a valid configuration is, the objects made from it, and the words for what is not valid."""

# Code of one's own from before ``neurona.errors`` imports these from here.
from neurona.errors import ConfigError as ConfigError
from neurona.errors import DataError as DataError
from neurona.errors import check_range as check_range
