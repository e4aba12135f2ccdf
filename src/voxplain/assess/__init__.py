"""Can an explanation be trusted? Metrics, baselines, randomisation, checks."""
