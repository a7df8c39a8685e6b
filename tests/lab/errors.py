"""What the lab says when it does not work itself."""


class LabError(Exception):
    """The lab does not do what it should: what was tried, where, and what was said."""
