"""Many runs: the launcher that gives each a process of its own, and the sweepers that choose them."""
