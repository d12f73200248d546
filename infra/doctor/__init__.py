"""Doctor: what keeps clusters from being made, reached or paid for as meant, found before it does so; each
with its fix.
"""

from infra.doctor.account import Wanted
from infra.doctor.examination import examine
from infra.doctor.findings import NOTE, OK, WRONG, Finding

__all__ = ["NOTE", "OK", "WRONG", "Finding", "Wanted", "examine"]
