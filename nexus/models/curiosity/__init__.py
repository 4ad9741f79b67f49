"""Bonuses for novelty from networks: what they can't predict yet is new."""
