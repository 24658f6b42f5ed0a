"""Vendors' own clients, each in an environment of its own, asked by an agent that runs there."""
