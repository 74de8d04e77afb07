"""Blinded rating by people: a page that shows real and synthetic images, and what its answers say."""
