"""Values as text, JSON and pictures. Pure.

``text`` is for people, ``json_`` for programs, ``diff`` for both.
"""
