"""Seven of the stages as they were before: with a logger and a JSON file of their own making.

They do the same work as those in ``stages/`` and call the same functions for it. The implementation guide in ``docs/``
shows each beside what it became.
"""
