"""Models of a project where others find them."""
