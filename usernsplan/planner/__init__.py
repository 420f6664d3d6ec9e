"""HostState x request -> Plan: every decision of allocate and release. Pure.

``allocate.make_plan`` and ``release.make_release`` are the entry points. ``recovery.mend`` decides
how an interrupted command ends. Nothing is imported here: who mounts a volume needs no allocator.
"""
