"""The trees of hierarchy.py, faster. `build_hierarchy` picks what fits the device; the trees are the same."""
