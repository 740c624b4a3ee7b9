"""Many runs: the launcher that gives each a process of its own, and the sweepers that choose them."""

from __future__ import annotations

from hydra.core.plugins import Plugins


def register() -> None:
    """Makes this project's launcher and sweepers known to Hydra, which accepts plugins of its own namespace only."""
    known = Plugins.instance().class_name_to_class  # imports Hydra's own plugins anew: theirs must come first
    from neurona.sweep.grid import Grid
    from neurona.sweep.launcher import Processes
    from neurona.sweep.search import Search

    known |= {f"hydra_plugins.neurona.{plugin.__name__}": plugin for plugin in (Grid, Processes, Search)}
