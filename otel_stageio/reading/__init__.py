"""A job read from disk, in any state and of any version, as plain data: what the command line, the report and the
server show. Nothing here prints, and nothing here writes but the end of what has died.
"""
