"""Where do the ranks run?

Rooms: `command` (one run on this launch), `elastic` (a run that outlives lost workers),
`study_file` (the language of many runs), `here` (a study file's runs on this launch), `queue` (the
same as jobs of a site), `pack` (the same side by side in one job), `slices` (which runs of it lie
where), `sites` (each site's launch settings), `ladder` (Horovod's average at
growing message sizes), `evaluating` (a finished run evaluated again), `asking` (what its network
predicts of a user's images), `notebooks` (the analysis of a group), `original_study_flags` (the
command line of the study that this one makes anew).

Nothing is imported here: a service node submits jobs without TensorFlow.
"""

__all__ = [
    "asking",
    "command",
    "elastic",
    "evaluating",
    "here",
    "ladder",
    "notebooks",
    "original_study_flags",
    "pack",
    "queue",
    "sites",
    "slices",
    "study_file",
]
