"""Proofs: what a certificate claims, checked against the two models it is about."""
