"""What is a Bayesian layer, and what is a network?"""
