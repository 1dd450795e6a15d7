"""Kills, races and storms; minutes each, so only with `-m torture`."""
