"""How is a network trained on ranks, and how is it asked?"""
