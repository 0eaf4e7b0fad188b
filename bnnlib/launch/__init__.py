"""Where do the ranks run?"""
