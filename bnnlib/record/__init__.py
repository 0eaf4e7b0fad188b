"""What is kept of a run, and what if something breaks?"""
