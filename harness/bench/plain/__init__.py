"""The plain way, as scripts that import nothing of the harness: what its figures are held against."""
