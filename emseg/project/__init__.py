"""A project of one's own: its folders, the stages of its pipeline, lists of runs, and how it begins."""
