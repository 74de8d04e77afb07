"""Studies: arms, splits, cells, statistics and the report."""
