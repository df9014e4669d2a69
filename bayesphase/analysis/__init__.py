"""From a posterior to tables; no torch, no pymc."""
