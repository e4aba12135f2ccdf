"""Many cases together: statistics over saved tables."""
