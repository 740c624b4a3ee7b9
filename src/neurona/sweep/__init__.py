"""Many runs: sweepers choose them, and a launcher runs each in a process of its own."""
