"""Whether calibrations on other rows pick the same."""
