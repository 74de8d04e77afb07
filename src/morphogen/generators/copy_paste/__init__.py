"""Lesion pasting with blending: the baseline that every generator has to beat."""
