"""The real Gradient service, through its own command line and SDK: set up, submit."""
