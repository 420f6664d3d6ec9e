"""Values -> what a person or a program reads: ``text`` for people, ``json_`` for programs, ``diff`` for both. Pure."""
