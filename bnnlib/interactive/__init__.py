"""How does JupyterLab drive the ranks?"""
