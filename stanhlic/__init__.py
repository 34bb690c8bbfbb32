__version__ = "0.2.0"
DEFAULT_MODEL = "stanh-zou22-compact"  # of `load`, `encode` and the command line
