"""`make demo`: qubes of several colours on one desktop, and a document that leaves no trace."""
