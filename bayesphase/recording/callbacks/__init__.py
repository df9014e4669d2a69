"""Recorders that trainers call: each module here needs the library of its trainer."""
