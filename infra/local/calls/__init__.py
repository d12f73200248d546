"""Calls of AWS that are answered otherwise than by moto: one file a subject, one function a call.

``patches.py`` is the registry; importing a file of this folder registers what is in it.
"""
