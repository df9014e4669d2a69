"""From features to a posterior."""
