"""What was measured, for people: one HTML page, or the same as Markdown, from files of results.

`report` puts a `Document` together out of sections, one a file; `html` and `markdown` write it down.
"""

from vtfast.report.contents import report
from vtfast.report.html import as_html
from vtfast.report.markdown import write_markdown
from vtfast.report.sources import Machine, load

__all__ = ["Machine", "as_html", "load", "report", "write_markdown"]
