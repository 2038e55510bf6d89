"""Where episodes are played: environments in worker processes or EnvPool, their reuse, and executors."""
