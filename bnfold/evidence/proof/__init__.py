"""Proofs: what a certificate claims, checked against the two models it is about.

Nothing here knows the folder: not its rules, not its planner, not its affine algebra.
"""

from bnfold.evidence.proof.certificate import Certificate, read_certificate
from bnfold.evidence.proof.prove import certify, prove, proved

__all__ = ["Certificate", "certify", "prove", "proved", "read_certificate"]
