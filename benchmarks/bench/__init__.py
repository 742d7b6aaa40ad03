"""How fast turnlog is, against whom: `python -m bench` (see benchmarks/README.md)."""
