"""Comparisons with other tools."""
