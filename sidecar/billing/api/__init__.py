"""The HTTP side (aiohttp): reading requests, writing answers, problem+json for everything that is wrong.

Owns: status codes and shapes. Does not own: what they mean; that is `service`.
"""
