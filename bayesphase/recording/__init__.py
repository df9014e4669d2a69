"""From a network to a metrics Dataset."""
