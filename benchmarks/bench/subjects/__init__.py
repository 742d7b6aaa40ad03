"""What is measured, a module for each: see `bench.subject` for how one looks."""
