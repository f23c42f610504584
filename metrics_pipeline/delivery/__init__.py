"""Notice → words → channel.

`messages` puts a notice into words (Chinese and English), `plots` draws its series, `outbox` sends what is due, and
`channels/` knows the protocols. Nothing here opens the warehouse: a notice carries all it needs.
"""
