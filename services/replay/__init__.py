"""Build any decision's prompt again from log and audit: check it, show it, ask an engine anew."""
