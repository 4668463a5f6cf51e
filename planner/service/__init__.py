"""Plans over HTTP: what a question may hold, the processes that answer it, and the page that asks. Needs the extra ``serve`` (only app.py)."""
