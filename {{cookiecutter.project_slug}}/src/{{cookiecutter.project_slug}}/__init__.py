"""The project: its data, its model and how they are trained and judged."""
