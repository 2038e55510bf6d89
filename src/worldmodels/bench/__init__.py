"""Speed as ratios against a baseline and a bound in the same run."""
