"""The processes of one run: started, connected and ended; their schedulers, signals and threads."""
