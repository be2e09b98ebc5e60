"""
Faults: how the sandbox misbehaves when it is asked to.

A fault is a small frozen class: its arguments are its fields, its base in :mod:`.stages` says
when it acts, and the method that the base names is what it does. The kinds are in one module
for each part of a request's way, in the order of that way: :mod:`.before`, :mod:`.effects`,
:mod:`.contents`, :mod:`.after`, :mod:`.wire`. :mod:`.catalogue` lists them all, :mod:`.book`
keeps those that wait for their request.
"""
