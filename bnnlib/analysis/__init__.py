"""What did the runs show? Reads records alone: no TensorFlow, no Horovod.

Rooms: `runs` (records as tables), `listing` (the table for people), `predictions` (what runs and
ensembles predict), `tables` (the rows behind each figure), `figures`, `findings` (the sentence
under each), `words` (numbers in sentences), `style`, `gallery` (how figures are kept), `redraw`
(drawn again from their tables), `scaling` (what ranks add).
"""

from bnnlib.analysis.runs import load, load_evaluation

__all__ = ["load", "load_evaluation"]
