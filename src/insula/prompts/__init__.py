"""Questions to the person, in windows of the admin domain's own."""
