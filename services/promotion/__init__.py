"""Compare a candidate in shadow with live, promote its settings, and take a promotion back."""
