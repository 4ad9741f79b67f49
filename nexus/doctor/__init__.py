"""Examining a run: what is measured of it, and what that says about why it does not learn."""
