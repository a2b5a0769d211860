"""Runs a renderer and writes its job."""
