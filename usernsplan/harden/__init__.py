"""What goes with a map: capabilities, no_new_privs, system calls, address families and labels. Pure.

policy.py: what somebody asked for, as the ledger keeps it. names.py: what the kernel calls things.
profiles/: named sets, each with the reason of each line. effective.py: a policy and its profile as
one answer. bases.py: what an engine refuses already. seccomp.py: that answer, laid over it. The files
in engines/ translate it for each engine.
"""
