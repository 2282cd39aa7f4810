"""Level optimizer: update rules and learning rates, step by step."""
