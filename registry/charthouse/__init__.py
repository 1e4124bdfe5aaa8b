"""Charthouse: a self-hosted registry for Helm charts."""

__version__ = "0.1.0"
