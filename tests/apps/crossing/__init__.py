"""Command lines of the apps that are drawn at random, what must become of each, and what does."""
