"""Pictures and videos of an acting agent."""
