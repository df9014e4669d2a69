"""Small real networks to watch."""
