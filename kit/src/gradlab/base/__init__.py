"""What every room builds on: files that survive, locks, processes, texts. Knows no other room."""
