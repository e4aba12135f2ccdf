"""One lesion among many: which are found, what made the model find each, what it needs."""
