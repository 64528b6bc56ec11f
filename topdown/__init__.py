"""Practical deep learning, top-down: the library that the course writes"""

__version__ = "0.1.0"
