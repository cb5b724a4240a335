"""Small SQLite files in which all workers and the operator's commands count together.

Durability is relaxed on purpose (WAL with ``synchronous = NORMAL``): no fsync stands between
what is counted and its answer, a killed process loses nothing, and a power cut may lose the last
moments' counts, never the file.
"""
