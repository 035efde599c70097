"""Checks of one's own operations, by the rule that those of vtfast are held to."""

from vtfast.testing.check_op import check_op
from vtfast.testing.report import Check, Report, Row

__all__ = ["Check", "Report", "Row", "check_op"]
