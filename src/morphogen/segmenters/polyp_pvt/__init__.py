"""Polyp-PVT: a pyramid vision transformer, whose fine and coarse levels are read apart and joined by similarity."""
