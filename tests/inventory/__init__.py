"""What a storage keeps, seen from above."""
