"""Ways to learn from few labelled volumes, compared over folds: rows instead of arms, volumes instead of images."""
