"""The parts of `make demo`: an agent, a worker to kill, a provider to talk to, and a stage."""
