"""The questions of the study, a module each: tables, figures and sentences of compact records.

The records are those of :mod:`bnnlib.analysis.compact`. Nothing here is trained or evaluated.
"""
