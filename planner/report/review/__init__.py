"""The document for a capacity review: one record of what was found (economics/review.py), written as a page, Markdown, a workbook, CSV or FOCUS rows."""
