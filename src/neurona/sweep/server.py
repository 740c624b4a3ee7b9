"""Imported first, by the process from which a sweep's jobs are forked."""

import atexit
import gc

from neurona.runs.provenance import checkout

gc.disable()  # until a job begins, as in ``job.run``
checkout()  # asked once, not by each job
atexit.register(gc.freeze)  # as in ``command.main``
