"""Where episodes are played: worlds in processes, EnvPool, environments that are kept, and executors."""
