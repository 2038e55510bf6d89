"""Pictures of results: plots and videos."""
