"""One small process per job, from before its worker starts until its record is exact.

(skeleton)
"""
