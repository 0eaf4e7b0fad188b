"""Stand-in for Balsam 0.7 (:mod:`.api`), which cannot be installed beside the locked packages."""
