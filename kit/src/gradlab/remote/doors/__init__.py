"""Hands a run to a service that is open, follows it over the ends of sessions, brings it back."""
