"""Which service this machine is of, what it keeps there and when its session ends."""
