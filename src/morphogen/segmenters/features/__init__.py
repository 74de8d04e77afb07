"""A decoder on the frozen features of a foundation: what its knowledge is worth without a synthetic image."""
