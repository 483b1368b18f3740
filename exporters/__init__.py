"""Sends captures out, one destination per file. Reads captures and never changes them."""
