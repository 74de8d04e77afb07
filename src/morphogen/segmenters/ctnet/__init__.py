"""CTNet: a contrastive transformer for polyps."""
