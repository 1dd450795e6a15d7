"""What `wt` costs, as ratios to plain git doing the same work on the same tree."""
