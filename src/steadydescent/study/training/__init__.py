"""Training: from planned runs to stored results, here or on workers, notebook by notebook."""
