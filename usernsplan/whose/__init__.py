"""Who has an id, and what a process may do with it: facts of a host in, answers out. Pure.

``ids`` says whose an id is, ``privileges`` what the state of a process means.
"""
