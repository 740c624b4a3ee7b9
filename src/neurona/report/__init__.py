"""Comparing runs: statistics, tables, pictures, an HTML page."""
