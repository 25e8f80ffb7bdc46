"""What the harness costs, measured beside the plain way on the same host: ratios, with all their samples."""
