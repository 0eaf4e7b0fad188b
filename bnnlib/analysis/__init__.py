"""What did the runs show?"""
