"""Whole volumes: readers of their layouts, preparation, patches. (`data.readers` makes 2D slices of NIfTI volumes.)"""
