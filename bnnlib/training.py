"""The seed study's command line, ``python -m bnnlib.training --flagfile=config.cfg``."""

from bnnlib.launch.command import train

if __name__ == "__main__":
    train()
