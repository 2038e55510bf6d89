"""C, the controller: the policy, the evolution strategies and the evolving."""
