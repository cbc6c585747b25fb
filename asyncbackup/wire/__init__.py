"""The sheep protocol, sans-IO: constants, messages, framing, inodes, object ids, B-trees, node lists.

Pure functions and small values over bytes. No sockets, no event loop, no policy, no logging.
"""
