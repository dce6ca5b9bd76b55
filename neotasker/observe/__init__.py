"""Sight into what runs: figures, and tasks that wait too long."""
