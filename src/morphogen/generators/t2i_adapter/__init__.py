"""T2I-Adapter (Mou et al., AAAI 2024)."""
