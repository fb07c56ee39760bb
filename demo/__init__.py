"""How the bundled demo model, gemma3n-nano, is made: ``make demo-model``."""
