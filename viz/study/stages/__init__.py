"""The stages of the study, a file each: a function `run` of the study that returns (pictures, facts).

A stage computes with the rooms of `viz` and hands the arrays to `figures`; what is said of it stands in `words`, its
row in `table.py`.
"""
